"""What stands still while clients come and go: gunicorn with origin.py, the gateway before it, and what both can be asked."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path += [str(HERE.parent / "compare"), str(HERE.parent / "waiting_room")]

from machine import Failure, Process, cpu_seconds, free_ports, wait_for  # noqa: E402

PYTHON = ROOT / ".venv" / "bin" / "python"
WORKERS = 4
# What a limit of a minute or more would hide from a run of 20 s.
TIGHT = "header_timeout: 3s, idle_timeout: 5s, body_rate: { min: 500, after: 3s }, read_rate: { min: 500, after: 3s }"
LIMITS = {"default": "", "tight": TIGHT}
SPOOL = {"default": "", "tight": "memory: 32MiB"}
# Named so that the bench can look whether they are at rest.
GAUGES = ("hostler_connections", "hostler_in_flight", "hostler_waiting", "hostler_streams", "hostler_spool_bytes")


class App:
    """gunicorn with four sync workers."""

    def __init__(self, folder):
        self.folder = folder
        self.socket = folder / "gunicorn.sock"
        os.environ["ATTACKS_FOLDER"] = str(folder)
        command = [PYTHON, "-m", "gunicorn", "origin:application", "--chdir", HERE, "--no-control-socket", "--timeout", 300]
        command += ["--workers", WORKERS, "--bind", f"unix:{self.socket}", "--backlog", 2048, "--log-level", "warning"]
        self.process = Process("gunicorn", command, os.sched_getaffinity(0), folder / "gunicorn.log")
        try:
            wait_for(self.serves, 20, "gunicorn serves")
        except BaseException:
            self.process.stop()
            raise

    def serves(self):
        self.process.check_alive()
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(self.socket)) != 0:
                return False
            probe.settimeout(10)
            probe.sendall(b"GET /fast?by=honest HTTP/1.0\r\n\r\n")
            return probe.recv(1024).split()[1:2] == [b"200"]

    def counts(self):
        """Requests that have reached the app since its start: of honest clients, and of attackers."""
        return tuple((self.folder / f"count-{who}").stat().st_size for who in ("honest", "attack"))

    def hold_workers(self):
        """From now on `/gate` keeps its worker."""
        (self.folder / "gate").touch()

    def release_workers(self):
        (self.folder / "gate").unlink(missing_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()


class Gateway:
    """Hostler on free ports, with everything that is asked of it from outside.

    `limits`: `default` or `tight`; `spool`: what the file says of the spool instead.
    """

    def __init__(self, binary, app, certificate, limits, spool="", descriptors=None):
        self.plain, self.tls, self.admin = free_ports(3)
        self.log = app.folder / "hostler.log"
        self.log.write_bytes(b"")
        config = app.folder / "hostler.yaml"
        values = {"PLAIN": self.plain, "TLS": self.tls, "ADMIN": self.admin, "LIMITS": LIMITS[limits], "DIR": app.folder}
        values |= {"SOCKET": app.socket, "CERTIFICATE": certificate[0], "PRIVATE_KEY": certificate[1], "SPOOL": spool or SPOOL[limits]}
        template = (HERE / "hostler.yaml").read_text()
        config.write_text(re.sub(r"@([A-Z_]+)@", lambda match: str(values.get(match[1], match[0])), template))
        checked = subprocess.run([binary, "check", "-c", config], capture_output=True, text=True)
        if checked.returncode != 0:
            raise Failure(f"This Hostler does not take the configuration:\n{checked.stderr}{checked.stdout}")
        command = [binary, "serve", "-c", config]
        if descriptors:
            command = ["sh", "-c", f'ulimit -n {descriptors}; exec "$0" "$@"', *command]
        self.process = Process("hostler", command, os.sched_getaffinity(0), self.log)
        self.pid = self.process.child.pid
        try:
            wait_for(self.listens, 10, "hostler listens")
        except BaseException:
            self.process.stop()
            raise

    def listens(self):
        self.process.check_alive()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.plain)) == 0

    def series(self, timeout=10):
        """Everything at /metrics: series to value."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=timeout) as answer:
            return read_series(answer.read().decode())

    def counters(self):
        """Every counter of its own."""
        return {name: value for name, value in self.series().items() if is_counter(name)}

    def rss(self):
        """Resident bytes now."""
        return self.status("VmRSS")

    def peak_rss(self):
        """The most resident bytes since `forget_peak`."""
        return self.status("VmHWM")

    def forget_peak(self):
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def status(self, field):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) << 10
        self.process.check_alive()
        raise Failure(f"/proc/{self.pid}/status has no {field}")

    def descriptors(self):
        """Open descriptors; the fewest of some looks, because the connection that /metrics has come over lives on a while."""
        looks = []
        for _ in range(5):
            looks.append(len(os.listdir(f"/proc/{self.pid}/fd")))
            time.sleep(0.01)
        return min(looks)

    def cpu(self):
        """Seconds of CPU since its start."""
        return cpu_seconds([self.pid])

    def log_lines(self):
        return self.log.read_text(errors="replace").splitlines()

    def busy(self):
        """Those gauges that are not 0."""
        return {name: value for name, value in self.series().items() if name.partition("{")[0] in GAUGES and value}

    def settle(self, within=15, descriptors=None):
        """Waits until nothing is under way and no more descriptors are open than `descriptors`. Returns what is not
        so, as text: empty, it is hoped."""
        until = time.monotonic() + within
        while True:
            self.process.check_alive()
            left = [f"{name} {value:.0f}" for name, value in self.busy().items()]
            more = self.descriptors() - (descriptors or 0)
            if descriptors is not None and more > 0:
                left.append(f"{more} descriptors")
            if not left or time.monotonic() > until:
                return ", ".join(left)
            time.sleep(0.1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()


def read_series(text):
    lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def is_counter(name):
    return name.startswith("hostler_") and name.partition("{")[0].endswith("_total")


def grown(before, after):
    """What was counted between two looks."""
    rose = ((name, value - before.get(name, 0)) for name, value in after.items())
    return {name: int(value) for name, value in rose if value}
