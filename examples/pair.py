"""
Runs an example: gunicorn with sync workers on a unix socket, and Hostler in front of it. Each example's run.py says what is
its own; this is what all have in common.

Both stop together: on Ctrl-C (or SIGTERM), or when one of them ends by itself. A second Ctrl-C does not wait for requests
that are still running.
"""

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

SOCKET_PATH_MOST = 107  # bytes that fit into the kernel's address of a unix socket

ADDRESS = "https://localhost:8443"
READY_WITHIN = 30
# What each may take from the request to stop to its end: a little longer than its own drain.
STOP_WITHIN = {"hostler": 10, "gunicorn": 32}


class Failure(Exception):
    """Ends the run with a message."""


@dataclass
class Example:
    """What is one example's own. Its folder has hostler.yaml, which listens at ADDRESS."""

    folder: Path
    app: str  # as gunicorn is told it
    workers: int
    welcome: str
    # Commands that are run to their end before, each a list of arguments for this interpreter.
    prepare: list = field(default_factory=list)

    @property
    def socket(self):
        return self.folder / "run" / "gunicorn.sock"

    def config(self):
        """hostler.yaml; where there is no IPv6 loopback (many containers), the same without its [::1] listeners."""
        config = self.folder / "hostler.yaml"
        try:
            with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
                probe.bind(("::1", 0))
            return config
        except OSError:
            print("This machine has no ::1; the example listens on 127.0.0.1 alone.", flush=True)
            lines = config.read_text().splitlines(keepends=True)
            self.config_ipv4.write_text("".join(line for line in lines if 'bind: "[::1]:' not in line))
            return self.config_ipv4

    @property
    def config_ipv4(self):
        return self.folder / ".ipv4.yaml"


class Pair:
    """The two processes, and whether somebody asked them to stop."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = {}
        self.asked = threading.Event()
        self.hurry = False

    def on_signal(self, *_):
        self.hurry = self.asked.is_set()
        self.asked.set()

    def start(self, name, command):
        # A session of its own: Ctrl-C in the terminal reaches this script alone, which then stops both in order.
        self.processes[name] = subprocess.Popen(command, cwd=self.folder, start_new_session=True)

    def fail_if_one_ended(self):
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise Failure(f"{name} ended by itself ({describe(process.returncode)}); its own words are above.")

    def watch(self):
        while not self.asked.wait(0.2):
            self.fail_if_one_ended()

    def stop(self):
        """Hostler first: it lets running requests end, for which gunicorn is still needed."""
        for name in ["hostler", "gunicorn"]:
            process = self.processes.get(name)
            if process is not None:
                self.stop_one(name, process)

    def stop_one(self, name, process):
        if process.poll() is None:
            print(f"Stopping {name} …", flush=True)
            process.terminate()
            until = time.monotonic() + STOP_WITHIN[name]
            while process.poll() is None and time.monotonic() < until and not self.hurry:
                time.sleep(0.05)
        # What is left of its session, workers included; nothing, if it stopped as asked.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def describe(status):
    return f"exit code {status}" if status >= 0 else signal.Signals(-status).name


def wait_until_ready(pair):
    until = time.monotonic() + READY_WITHIN
    while not pair.asked.is_set():
        pair.fail_if_one_ended()
        if answers():
            return
        if time.monotonic() > until:
            raise Failure(f"No answer from {ADDRESS} within {READY_WITHIN} s; the logs above may say why.")
        pair.asked.wait(0.1)


def answers():
    """Whether the index page comes through both. The certificate is not what is asked about here."""
    connection = HTTPSConnection("127.0.0.1", 8443, timeout=2, context=ssl._create_unverified_context())
    try:
        connection.request("GET", "/", headers={"Host": "localhost:8443"})
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def run(example, hostler):
    if len(os.fsencode(example.socket)) > SOCKET_PATH_MOST:
        raise Failure(f"{example.socket} is too long for a unix socket ({SOCKET_PATH_MOST} bytes): move the repository up.")
    example.socket.parent.mkdir(exist_ok=True)
    pair = Pair(example.folder)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pair.on_signal)
    try:
        for command in example.prepare:
            if subprocess.run([sys.executable, *command], cwd=example.folder).returncode != 0:
                raise Failure(f"{' '.join(command[:2])} failed; its own words are above.")
        # Nothing but gunicorn's defaults: they are enough behind Hostler. (The control socket would be shared by all
        # gunicorns of this user.)
        gunicorn = [sys.executable, "-m", "gunicorn", example.app, "--workers", str(example.workers)]
        pair.start("gunicorn", [*gunicorn, "--bind", f"unix:{example.socket}", "--no-control-socket"])
        pair.start("hostler", [hostler, "serve", "-c", example.config()])
        wait_until_ready(pair)
        if not pair.asked.is_set():
            print(example.welcome, flush=True)
        pair.watch()
    finally:
        pair.stop()
        example.config_ipv4.unlink(missing_ok=True)


def main(example):
    if len(sys.argv) != 2:
        sys.exit("usage: run.py HOSTLER_BINARY")
    hostler = Path(sys.argv[1]).resolve()
    if not os.access(hostler, os.X_OK):
        sys.exit(f"{hostler} is not there; build it with: cargo build --release --locked")
    try:
        run(example, hostler)
    except Failure as failure:
        sys.exit(f"\n{failure}")
    print("Both have stopped.")
