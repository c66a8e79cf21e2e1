"""The machine: which core is whose, processes that end with the bench, and what /proc knows about them."""

import ctypes
import os
import random
import resource
import signal
import socket
import subprocess
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
TICKS = os.sysconf("SC_CLK_TCK")
LIBC = ctypes.CDLL(None)


class Failure(Exception):
    """Something the reader has to know; the bench cannot go on."""


def cores():
    """One core for the proxy, the others for load and origin, so that neither takes time from the proxy."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise Failure("The comparison needs two cores: one for the proxy, one for load and origin.")
    proxy = available[0]
    others = set(available[1:])
    # A hyperthread beside the proxy's is no core of its own; where there are enough others, it stays idle.
    return {proxy}, (others - siblings(proxy)) or others


def siblings(core):
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list").read_text()
    except OSError:
        return set()
    found = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def allow_many_files():
    """As many open files as this user may have: every connection is one, or two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def describe():
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} cores, Linux {os.uname().release}"


def free_ports(count):
    """Ports that nobody listens on, below the range from which the load's own connections get theirs."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = random.sample(range(min(10000, lowest - 1000), lowest), 200)
    ports = []
    for port in candidates:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise Failure("No free ports on 127.0.0.1.")


class Process:
    """A child on given cores. It writes to a log file, and ends with the bench whatever happens to the bench."""

    def __init__(self, name, command, cpus, log, stdout=None):
        def before_exec():
            os.sched_setaffinity(0, cpus)
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

        self.name = name
        self.log = log
        with open(log, "ab") as file:
            self.child = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=stdout or file,
                stderr=file,
                preexec_fn=before_exec,
                start_new_session=True,
            )

    def check_alive(self):
        if self.child.poll() is not None:
            raise Failure(f"{self.name} ended by itself (status {self.child.returncode}):\n{self.last_words()}")

    def last_words(self):
        return "\n".join(Path(self.log).read_text(errors="replace").splitlines()[-15:])

    def stop(self, within=5):
        """SIGTERM, then SIGKILL for whatever of its session is left."""
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(within)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()
        if self.child.stdout:
            self.child.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def tree(pid):
    """The process and all its descendants."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int(stat_fields(int(entry.name))[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found.extend(children.get(one, []))
    return found


def stat_fields(pid):
    """The fields of /proc/PID/stat from the third on; the second, the name, may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pids):
    """utime + stime of these processes."""
    total = 0
    for pid in pids:
        fields = stat_fields(pid)
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def busy_seconds():
    """What all cores together have worked: user, nice, system, irq, softirq. Not idle, not stolen."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(fields[n]) for n in (0, 1, 2, 5, 6)) / TICKS


def memory_bytes(pids):
    """The memory of these processes, what they share counted once (PSS)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def wait_for(condition, within, what, every=0.02):
    """Waits until `condition` holds; it may raise to end the wait early."""
    until = time.monotonic() + within
    while not condition():
        if time.monotonic() > until:
            raise Failure(f"{what}: not within {within} s")
        time.sleep(every)
