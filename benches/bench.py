"""Measures what a build needs against the budgets of the design, and prints one table.

Takes under eight minutes after the build. Results also go to target/bench.json. Other programs on
the machine make the figures worse; the output says how far they disturbed.
"""
import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time

import account
import budgets
from node import TOP, Failed, Node, wait

PARTS = ["binary", "start", "idle", "api", "watch", "pods"]
# After the node is Ready, before its idle figures are taken: set-up garbage is trimmed after 10 s.
SETTLE = 20
IDLE = 60
# The store writes what need not be on disk at once at most this often.
RELAXED_A_DAY = 72
IMAGE = "library/busybox:latest"
PODS = 50
WHOLE_RUN = 480


class TimeUp(Exception):
    """The whole run takes longer than WHOLE_RUN."""


class Bench:
    def __init__(self, binary, kload, parts):
        self.binary, self.parts = binary, parts
        self.node = Node(binary, kload)
        self.rows = budgets.rows()
        self.raw, self.problems, self.others = {}, [], 0.0

    def set(self, key, measured, note=""):
        self.rows[key].measured, self.rows[key].note = measured, note

    def run(self):
        if "binary" in self.parts:
            self.set("binary", os.path.getsize(self.binary) / 1e6, os.path.relpath(self.binary, TOP))
        if self.parts == ["binary"]:
            return
        parts = {"idle": self.idle, "start": self.restart, "api": self.api, "watch": self.watch, "pods": self.pods}
        try:
            self.node.up()
            # Everything else needs the started server.
            if self.attempt("first start", self.start):
                for name, part in parts.items():
                    if name in self.parts:
                        self.attempt("restart" if part == self.restart else name, part)
        except TimeUp:
            self.problems.append(f"the whole run takes more than {WHOLE_RUN} s")
        finally:
            signal.alarm(0)
            self.node.down()

    def attempt(self, name, part):
        """Whether a part succeeded; its failure leaves the others' rows."""
        say(f"{name} …")
        try:
            part()
        except (Failed, OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
            self.problems.append(f"{name}: {error}")
            say(self.problems[-1])
            return False
        return True

    def start(self):
        readyz, node_ready = self.node.start()
        self.set("readyz_first", readyz)
        self.set("node_ready", node_ready)

    def restart(self):
        self.node.stop()
        readyz, _ = self.node.start()
        self.set("readyz_restart", readyz)

    def idle(self):
        time.sleep(SETTLE)
        pid = self.node.pid()
        self.flush()
        cpu, written = self.node.group.cpu_seconds(), account.written(pid)
        begin = time.monotonic()
        time.sleep(IDLE)
        passed = time.monotonic() - begin
        self.set("idle_cpu", (self.node.group.cpu_seconds() - cpu) / passed * 100, f"over {passed:.0f} s")
        in_window = account.written(pid) - written
        memory = account.memory(pid)
        self.set("idle_rss", memory["rss"], f"PSS {memory['pss']:.1f}, private {memory['private']:.1f}")
        written = account.written(pid)
        self.flush()
        flush = account.written(pid) - written
        a_day = in_window * 86400 / passed + flush * RELAXED_A_DAY
        note = f"{in_window / 1e3:.0f} kB in {passed:.0f} s, and {RELAXED_A_DAY} x {flush / 1e3:.0f} kB of held-back writes"
        self.set("idle_writes", a_day / 1e6, note)

    def flush(self):
        """Forces one of the rare commits of relaxed writes, as any strict write does. This one changes the node, whose
        heartbeats are held back anyway: with the leases that is all that an idle machine has to write."""
        self.node.kubectl("annotate", "node", "bench", "--overwrite", f"bench={time.monotonic()}")

    def api(self):
        results = self.kload("--secs", "6", "get", "list", "put", "put1")
        for test in ("get", "list", "put"):
            figures = results[test]
            times = f"p50 {figures['request_p50_ms']:.2f} ms, p99 {figures['request_p99_ms']:.2f} ms"
            self.set(test, figures["per_second"], times)
            cores = f"{figures['server_cores']:.2f} cores, the client {figures['client_cores']:.2f}"
            self.set(test + "_cpu", figures["server_cpu_ms"] * 1e3, cores)
        self.set("put1_p50", results["put1"]["request_p50_ms"], f"p99 {results['put1']['request_p99_ms']:.2f} ms")

    def watch(self):
        figures = self.kload("fanout")["fanout"]
        self.set("fanout_p50", figures["last_watcher_p50_ms"], f"the PUT itself {figures['put_p50_ms']:.2f} ms")
        self.set("fanout_p99", figures["last_watcher_p99_ms"], f"{figures['server_cpu_ms'] * 1e3:.1f} us of CPU an event")

    def pods(self):
        self.node.stop()
        self.node.add_image(IMAGE)
        self.node.start()
        image = f"docker.io/{IMAGE}"
        one = self.kload("--image", image, "pods")["pods"]
        times = f"p99 {one['running_p99_ms']:.0f} ms, deleted (grace 1 s) after {one['deleted_p50_ms'] / 1e3:.2f} s"
        self.set("pod_p50", one["running_p50_ms"], times)
        wait("no pod is left", lambda: not self.node.shims())
        available, before = self.memory_of_machine()
        burst = self.kload("--image", image, "--hold", "pods50", while_held=lambda: self.hold(available, before))["pods50"]
        self.set("pod_rate", burst["per_second"], f"p50 {burst['running_p50_ms']:.0f} ms")
        self.set("pod_cpu", burst["cpu_to_running_ms"], f"one after another {one['cpu_to_running_ms']:.0f}")

    def memory_of_machine(self):
        """MemAvailable, and the PSS of everything on the node, both in MiB."""
        time.sleep(2)
        return account.available_mib(), sum(m["pss"] for m in account.memories(self.node.group.pids()).values())

    def hold(self, available_before, pss_before):
        """All pods run: what they and their shims take."""
        available, pss = self.memory_of_machine()
        self.set("pod_memory", (available_before - available) / PODS, "others' memory included")
        server = account.memory(self.node.pid())
        self.set("pod_pss", (pss - pss_before) / PODS, f"the server's PSS is {server['pss']:.1f} MiB with {PODS} pods")
        shims = list(account.memories(self.node.shims()).values())
        if not shims:
            raise Failed("no shim runs")
        for kind in ("pss", "private"):
            self.set(f"shim_{kind}", sum(m[kind] for m in shims) / len(shims), f"mean of {len(shims)}")

    def kload(self, *arguments, while_held=None):
        results = self.node.kload(*arguments, while_held=while_held)
        self.raw.update(results)
        self.others = max([self.others, *(figures.get("other_cores", 0) for figures in results.values())])
        return results


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def build(target, binary):
    """Builds what ships, the static image, unless a binary is given."""
    say("building")
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "kload"], cwd=TOP, check=True)
    if not binary:
        subprocess.run(["scripts/static", platform.machine()], cwd=TOP, check=True)
        binary = os.path.join(TOP, "target", "static", platform.machine(), "coracle")
    stripped = os.path.join(target, "bench", "coracle")
    os.makedirs(os.path.dirname(stripped), exist_ok=True)
    subprocess.run(["strip", "-o", stripped, binary], check=True)
    return stripped, os.path.join(target, "release", "kload")


def report(bench, out):
    chosen = [row for row in bench.rows.values() if row.measured is not None or len(bench.parts) == len(PARTS)]
    print(budgets.table(chosen))
    print("upstream: kube-apiserver, etcd and kubelet 1.36.2, measured on the same kind of machine, not in this run")
    if bench.raw:
        print(f"other programs took up to {bench.others:.2f} of {os.cpu_count()} cores while kload ran")
    for problem in bench.problems:
        print(f"PROBLEM {problem}")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=TOP, capture_output=True, text=True, check=True).stdout.strip()
    results = {
        "commit": commit, "kernel": platform.release(), "machine": platform.machine(), "cores": os.cpu_count(),
        "other_cores": bench.others, "problems": bench.problems,
        "rows": [row.as_json() for row in bench.rows.values()], "kload": bench.raw,
    }
    with open(out, "w") as file:
        json.dump(results, file, indent=1)


def too_long(*_):
    raise TimeUp


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these of: {' '.join(PARTS)} [default: all]")
    parser.add_argument("--binary", metavar="FILE", help="measure this one and build only the client")
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown: {' '.join(sorted(unknown))}")
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(TOP, "target"))
    bench = Bench(*build(target, arguments.binary), parts)
    # A request to end still removes the machine.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(WHOLE_RUN)
    bench.run()
    report(bench, os.path.join(target, "bench.json"))
    return 1 if bench.problems else 0


if __name__ == "__main__":
    sys.exit(main())
