"""Asks whether the API server is ready, again and again, until standard input ends.

    watchdog.py KUBECONFIG

Each question goes as an administrator over a connection of its own, as a client that arrives in the
middle of an attack would. At the end it prints how often it asked, the longest wait in milliseconds, and
how many questions were not answered with 200:

    asked N longest MS failed N
"""

import http.client
import select
import sys
import time

from writers import server

PAUSE = 0.05
# What takes longer than this counts as not answered.
TIMEOUT = 20


def ready(address, context):
    connection = http.client.HTTPSConnection(*address, timeout=TIMEOUT, context=context)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def main():
    address, context = server(sys.argv[1])
    asked, longest, failed = 0, 0.0, 0
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        start = time.monotonic()
        failed += not ready(address, context)
        longest = max(longest, time.monotonic() - start)
        asked += 1
    print(f"asked {asked} longest {longest * 1000:.0f} failed {failed}")


main()
