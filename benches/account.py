"""What processes, control groups and the machine have used, from /proc and /sys/fs/cgroup."""
import os

CGROUPS = "/sys/fs/cgroup"


def read(path):
    with open(path) as file:
        return file.read()


class Group:
    """The control group that accounts for the CPU of one machine of `tests/machine`: the server is
    put there, and its shims and pods are born there."""

    def __init__(self, machine):
        with open("/proc/self/cgroup") as lines:
            hierarchies = [line.split(":")[1] for line in lines]
        # cgroup v1 where the controller has a hierarchy, else v2.
        v1 = next((h for h in hierarchies if "cpuacct" in h.split(",")), None)
        root = os.path.join(CGROUPS, v1 or "")
        self.directory = os.path.join(root, "coracle-test", machine)
        usage = "cpuacct.usage" if v1 else "cpu.stat"
        self.usage = os.path.join(self.directory, usage)
        # The machine sees its group as the root.
        self.usage_inside = os.path.join(root, usage)

    def join(self):
        """Puts the calling process into the group."""
        with open(os.path.join(self.directory, "cgroup.procs"), "w") as file:
            file.write(str(os.getpid()))

    def cpu_seconds(self):
        text = read(self.usage)
        if text.startswith("usage_usec"):
            return int(text.split()[1]) / 1e6
        return int(text) / 1e9

    def pids(self):
        found = []
        for directory, _, files in os.walk(self.directory):
            if "cgroup.procs" in files:
                found += [int(pid) for pid in read(os.path.join(directory, "cgroup.procs")).split()]
        return found


def memory(pid):
    """MiB of a process: rss, pss and private."""
    sizes = {}
    for line in read(f"/proc/{pid}/smaps_rollup").splitlines()[1:]:
        name, size = line.split(":")
        sizes[name] = int(size.split()[0]) / 1024
    return {"rss": sizes["Rss"], "pss": sizes["Pss"], "private": sizes["Private_Clean"] + sizes["Private_Dirty"]}


def memories(pids):
    """The same of several, leaving out those that have just ended."""
    found = {}
    for pid in pids:
        try:
            found[pid] = memory(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def command(pid):
    """The arguments of a process; none when it has just ended."""
    try:
        return read(f"/proc/{pid}/cmdline").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def written(pid):
    """Bytes that a process sent to the device."""
    lines = dict(line.split(": ") for line in read(f"/proc/{pid}/io").splitlines())
    return int(lines["write_bytes"])


def available_mib():
    line = next(line for line in read("/proc/meminfo").splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) / 1024
