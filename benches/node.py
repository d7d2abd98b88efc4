"""A machine with one Coracle server on it, and kload to load it."""
import json
import os
import signal
import subprocess
import threading
import time

import account

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MACHINE = os.path.join(TOP, "tests", "machine")
NAME = "bench"
# Every single wait ends here at the latest, in seconds.
DEADLINE = 90
# All tests of one call of kload end by then.
LOAD_DEADLINE = 150


class Failed(Exception):
    """Something did not happen, or not in time."""


def run(*arguments):
    """Runs a command that must succeed; its output."""
    try:
        done = subprocess.run(arguments, cwd=TOP, capture_output=True, text=True, timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(arguments)} did not end in {DEADLINE} s") from None
    if done.returncode != 0:
        raise Failed(f"{' '.join(arguments)}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return done.stdout


def wait(what, condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"waited in vain until {what}")
        time.sleep(0.02)


class Node:
    def __init__(self, binary, kload):
        self.binary, self.kload_binary = binary, kload
        self.directory = os.path.join(TOP, "target", "machines", NAME)
        self.group = account.Group(NAME)
        self.server = None

    def up(self):
        run(MACHINE, "up", NAME)

    def down(self):
        run(MACHINE, "down", NAME)
        if self.server:
            self.server.wait(timeout=DEADLINE)

    def add_image(self, image):
        """Lays an image where the next start imports it."""
        images = os.path.join(self.directory, "var-lib", "coracle", "images")
        os.makedirs(images, exist_ok=True)
        build = os.path.join(TOP, "tests", "images", "build.py")
        run("python3", build, "build", "target/images")
        run("python3", build, "archive", "target/images", image, os.path.join(images, "bench.tar"))

    def start(self):
        """Starts the server; seconds until /readyz answered and until the node was Ready."""
        ready = self.spawn_kload(["ready"])
        with open(os.path.join(self.directory, "coracle.log"), "a") as log:
            begin = time.monotonic()
            self.server = subprocess.Popen(
                [MACHINE, "run", NAME, self.binary, "server", "--node-name", "bench", "--node-ip", "192.168.77.2"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=self.group.join,
            )
        figures = self.results(ready)["ready"]
        return figures["readyz_at_s"] - begin, figures["node_ready_at_s"] - begin

    def pid(self):
        """The server as this side sees it: the only child of what entered the machine for it."""
        outer = self.server.pid
        children = account.read(f"/proc/{outer}/task/{outer}/children").split()
        if not children:
            raise Failed(f"the server ended:\n{self.log_tail()}")
        return int(children[0])

    def pid_inside(self):
        status = account.read(f"/proc/{self.pid()}/status")
        return next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1]

    def stop(self):
        """Ends the server in order."""
        os.kill(self.pid(), signal.SIGTERM)
        self.server.wait(timeout=DEADLINE)

    def kubectl(self, *arguments):
        kubectl = os.path.join(TOP, "target", "tools", "kubectl")
        return run(MACHINE, "run", NAME, kubectl, "--kubeconfig", "/etc/coracle/kubeconfig.yaml", *arguments)

    def shims(self):
        return [pid for pid in self.group.pids() if account.command(pid)[1:2] == ["shim"]]

    def log_tail(self):
        lines = account.read(os.path.join(self.directory, "coracle.log")).splitlines()
        return "\n".join(lines[-20:])

    def spawn_kload(self, arguments):
        return subprocess.Popen(
            [MACHINE, "run", NAME, self.kload_binary, "--kubeconfig", "/etc/coracle/kubeconfig.yaml", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )

    def kload(self, *arguments, while_held=None):
        """Runs tests of kload against the server; their figures by test."""
        account_of = ["--pid", self.pid_inside(), "--cpu", self.group.usage_inside]
        return self.results(self.spawn_kload([*account_of, *arguments]), while_held)

    def results(self, process, while_held=None):
        """Reads what kload prints; calls `while_held` when it holds, then lets it go on."""
        results = {}
        # Ends what hangs: then its output ends too.
        limit = threading.Timer(LOAD_DEADLINE, process.kill)
        limit.start()
        try:
            for line in process.stdout:
                said = json.loads(line)
                if "error" in said:
                    raise Failed(f"kload: {said['error']}")
                if "holding" in said:
                    while_held()
                    process.stdin.write("go on\n")
                    process.stdin.flush()
                else:
                    results[said["test"]] = said["figures"]
            if process.wait(timeout=DEADLINE) != 0:
                raise Failed("kload did not end well")
        finally:
            limit.cancel()
            process.kill()
            process.wait()
        return results
