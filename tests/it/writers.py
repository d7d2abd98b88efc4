"""Clients that write at once, for the test that kills the server under them.

    writers.py KUBECONFIG NAMESPACE CLIENTS OBJECTS

Each client creates ConfigMaps one after another on a connection of its own, and says so on a line as
soon as it has read the whole answer:

    acknowledged NAME REVISION   the server has promised to keep it
    present NAME                 an earlier attempt was not answered but had been written
    lost NAME                    the connection broke before the answer; the client tries again
"""

import base64
import http.client
import json
import os
import re
import ssl
import sys
import tempfile
import threading
import time
import urllib.parse

# A server that does not come back fails the test here, not its caller's patience.
DEADLINE = time.monotonic() + 60
PAUSE = 0.02


def tls(config):
    """What the kubeconfig says, without a YAML parser: each of these keys stands once in it."""

    def data(key):
        return base64.b64decode(re.search(rf"{key}: *\"?([A-Za-z0-9+/=]+)", config)[1]).decode()

    context = ssl.create_default_context(cadata=data("certificate-authority-data"))
    with tempfile.NamedTemporaryFile("w") as pair:
        pair.write(data("client-certificate-data") + "\n" + data("client-key-data"))
        pair.flush()
        context.load_cert_chain(pair.name)
    return context


def say(*words):
    # One write for each line, so that lines of several clients never mix and none waits in a buffer.
    os.write(1, (" ".join(words) + "\n").encode())


def client(address, context, path, names):
    connection = None
    for name in names:
        body = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
        while True:
            sent = False
            try:
                connection = connection or http.client.HTTPSConnection(*address, timeout=10, context=context)
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                sent = True
                answer = connection.getresponse()
                said = json.loads(answer.read())
            except (OSError, http.client.HTTPException, ValueError):
                if sent:
                    say("lost", name)
                if time.monotonic() > DEADLINE:
                    raise
                connection = None
                time.sleep(PAUSE)
                continue
            if answer.status == 201:
                say("acknowledged", name, said["metadata"]["resourceVersion"])
                break
            if answer.status == 409:
                say("present", name)
                break
            # A server that has just started may not serve yet.
            if answer.status not in (403, 429, 500, 503) or time.monotonic() > DEADLINE:
                sys.exit(f"{name}: {answer.status} {said}")
            time.sleep(PAUSE)


def server(kubeconfig):
    """The address in a kubeconfig, and how to speak to it."""
    with open(kubeconfig, encoding="utf-8") as file:
        config = file.read()
    url = urllib.parse.urlsplit(re.search(r"server: *\"?(https://[^\s\"]+)", config)[1])
    return (url.hostname, url.port), tls(config)


def main():
    kubeconfig, namespace, clients, objects = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    address, context = server(kubeconfig)
    threads = [
        threading.Thread(target=client, args=(address, context, path, [f"w{n}" for n in range(first, objects, clients)]))
        for first in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
