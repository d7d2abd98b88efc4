"""The budgets of the design, what upstream was measured to need, and the table of both."""
import dataclasses

# Kubernetes 1.36.2's own programs, measured once with the same load on the same kind of machine
# (2 cores, Debian 12); not in this run.
UPSTREAM = {
    "idle_rss": 710, "idle_cpu": 6.8, "idle_writes": 2.3 * 1.048576 * 1440, "readyz_first": 3.8,
    "get": 2270, "list": 100, "put": 656, "get_cpu": 795, "list_cpu": 14600, "put_cpu": 2500,
    "fanout_p50": 7.1, "fanout_p99": 10.4, "pod_p50": 590, "pod_rate": 5.6, "pod_cpu": 350, "pod_memory": 9.8,
    "pod_pss": 9.8, "binary": 325,
}


@dataclasses.dataclass
class Row:
    key: str
    what: str
    unit: str
    at_most: float = None
    # A rate that must be this many times upstream's, or at least this.
    times: float = None
    at_least: float = None
    measured: float = None
    note: str = ""

    @property
    def upstream(self):
        return UPSTREAM.get(self.key)

    @property
    def ratio(self):
        """How many times better than upstream."""
        if not self.upstream or not self.measured:
            return None
        return self.measured / self.upstream if self.times or self.at_least else self.upstream / self.measured

    @property
    def met(self):
        if self.measured is None:
            return None
        if self.at_most is not None:
            return self.measured <= self.at_most
        if self.at_least is not None:
            return self.measured >= self.at_least
        return self.ratio >= self.times if self.times else None

    def budget(self):
        if self.at_most is not None:
            return f"<= {number(self.at_most)} {self.unit}"
        if self.at_least is not None:
            return f">= {number(self.at_least)} {self.unit}"
        return f">= {self.times} x upstream" if self.times else ""

    def cells(self):
        measured = "not measured" if self.measured is None else f"{number(self.measured)} {self.unit}"
        upstream = f"{number(self.upstream)} {self.unit}" if self.upstream else ""
        ratio = f"{number(self.ratio)} x" if self.ratio else ""
        verdict = {None: "", True: "ok", False: "MISSED"}[self.met]
        return [self.what, measured, self.budget(), verdict, upstream, ratio, self.note]

    def as_json(self):
        return {**dataclasses.asdict(self), "met": self.met, "upstream": self.upstream, "ratio": self.ratio}


def rows():
    """All rows, none measured, in the order of the design."""
    return {row.key: row for row in [
        Row("idle_rss", "idle RSS, server + node, fresh", "MiB", at_most=30),
        Row("shim_pss", "a shim, PSS", "MiB", at_most=1),
        Row("shim_private", "a shim, private", "MiB", at_most=1),
        Row("readyz_first", "first start to /readyz", "s", at_most=0.5),
        Row("readyz_restart", "restart to /readyz", "s", at_most=0.3),
        Row("node_ready", "first start to node Ready", "s", at_most=1.5),
        Row("idle_cpu", "idle CPU, of one core", "%", at_most=0.3),
        Row("idle_writes", "idle, written to the device a day", "MB", at_most=5),
        Row("get", "GET of 2 KB, 16 clients", "/s", times=10),
        Row("get_cpu", "  server CPU each", "us"),
        Row("list", "LIST of 1,000 x 1 KB, 4 clients", "/s", times=10),
        Row("list_cpu", "  server CPU each", "us"),
        Row("put", "durable PUT of 2 KB, 16 clients", "/s", times=10),
        Row("put_cpu", "  server CPU each", "us"),
        Row("put1_p50", "durable PUT of 2 KB, alone, p50", "ms"),
        Row("fanout_p50", "update to last of 100 watchers, p50", "ms"),
        Row("fanout_p99", "  p99", "ms"),
        Row("pod_p50", "pod create to Running, p50", "ms", at_most=80),
        Row("pod_rate", "50 pods at once", "/s", at_least=20),
        Row("pod_cpu", "  CPU each, to Running", "ms", at_most=60),
        Row("pod_memory", "memory a pod adds, MemAvailable", "MiB", at_most=1.5),
        Row("pod_pss", "memory a pod adds, PSS", "MiB", at_most=1.5),
        Row("binary", "binary, stripped", "MB", at_most=20),
    ]}


def number(value):
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def table(rows):
    head = ["", "this build", "budget", "", "upstream", "better by", ""]
    lines = [head] + [row.cells() for row in rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    out = []
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [line[n].rjust(widths[n]) for n in range(1, 6)]
        out.append("  ".join([*cells, line[6]]).rstrip())
    out.insert(1, "-" * max(map(len, out)))
    return "\n".join(out)
