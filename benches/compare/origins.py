"""What the peers stand in front of: the small origin, and gunicorn."""

import http.client
import os
import socket
import subprocess
import sys
from pathlib import Path

from machine import Failure, Process, tree, wait_for

HERE = Path(__file__).resolve().parent
APP_WORKERS = 4


class Origin:
    """The small server behind every peer (origin.rs)."""

    def __init__(self, binary, folder, cpus):
        self.socket = folder / "origin.sock"
        self.process = Process("origin", [binary, self.socket], cpus, folder / "origin.log", stdout=subprocess.PIPE)
        words = self.process.child.stdout.readline().split()
        if len(words) != 2 or words[0] != b"ready":
            self.process.stop()
            raise Failure(f"The origin did not start:\n{self.process.last_words()}")
        self.port = int(words[1])
        self.socket.chmod(0o777)  # nginx's worker is another user when the bench runs as root
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)

    @property
    def pids(self):
        return [self.process.child.pid]

    def served(self):
        """How many requests it has answered."""
        return int(self.get("/served"))

    def get(self, path):
        self.connection.request("GET", path)
        return self.connection.getresponse().read()

    def move(self, cpus):
        os.sched_setaffinity(self.process.child.pid, cpus)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()
        self.process.stop()


class App:
    """gunicorn with sync workers and the small app in wsgi.py."""

    def __init__(self, folder, cpus):
        self.socket = folder / "gunicorn.sock"
        self.counters = folder / "counters"
        self.counters.mkdir()
        os.environ["BENCH_COUNTERS"] = str(self.counters)
        command = [sys.executable, "-m", "gunicorn", "wsgi:answer", "--chdir", HERE, "--no-control-socket"]
        command += ["--workers", APP_WORKERS, "--bind", f"unix:{self.socket}", "--log-level", "warning"]
        self.process = Process("gunicorn", command, cpus, folder / "gunicorn.log")
        try:
            wait_for(self.listens, 20, "gunicorn listens")
        except BaseException:
            self.process.stop()
            raise

    def listens(self):
        self.process.check_alive()
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    @property
    def pids(self):
        return tree(self.process.child.pid)

    def served(self):
        """How many requests its workers have answered, by the counter that each of them keeps in a file."""
        return sum(int.from_bytes(each.read_bytes(), "little") for each in self.counters.iterdir())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()
