"""What a measurement is made of: gunicorn with the example shop, and one proxy in front of it."""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "compare"))

from machine import Failure, Process, free_ports, tree, wait_for  # noqa: E402

PYTHON = ROOT / ".venv" / "bin" / "python"
WORKERS = 4


class App:
    """gunicorn with sync workers, on a unix socket or on TCP. It can be stopped and comes back at the same address."""

    def __init__(self, folder, transport, workers=WORKERS):
        self.folder = folder
        self.workers = workers
        self.transport = transport
        self.journal = folder / "journal"
        self.journal.unlink(missing_ok=True)
        self.socket = folder / "gunicorn.sock"
        self.port = free_ports(1)[0]
        self.process = None
        self.start()
        wait_for(self.listens, 20, "gunicorn listens")

    def start(self):
        bind = f"unix:{self.socket}" if self.transport == "unix" else f"127.0.0.1:{self.port}"
        os.environ["SHOP_JOURNAL"] = str(self.journal)
        command = [PYTHON, "-m", "gunicorn", "shop.wsgi", "--chdir", ROOT / "examples" / "shop", "--no-control-socket"]
        # A view of a bench may take longer than a view should.
        command += ["--workers", self.workers, "--bind", bind, "--timeout", 300, "--log-level", "warning"]
        self.process = Process("gunicorn", command, os.sched_getaffinity(0), self.folder / "gunicorn.log")

    def stop(self):
        """SIGTERM, and its end: running requests are finished."""
        if self.process:
            self.process.stop(within=30)
            self.process = None

    def kill_a_worker(self):
        """SIGKILL for one of its workers, whichever."""
        workers = tree(self.process.child.pid)[1:]
        if workers:
            os.kill(random.choice(workers), signal.SIGKILL)

    def listens(self):
        self.process.check_alive()
        family, address = (socket.AF_UNIX, str(self.socket)) if self.transport == "unix" else (socket.AF_INET, ("127.0.0.1", self.port))
        with socket.socket(family) as probe:
            return probe.connect_ex(address) == 0

    def runs(self):
        """Every run of the app: (method, id, begin, end) in nanoseconds; no end: it was killed, or runs still."""
        begun, ended = {}, {}
        text = self.journal.read_text() if self.journal.exists() else ""
        for line in text.splitlines():
            what, run, _, time, *more = line.split(" ")
            if what == "begin":
                begun[run] = (*more, int(time))
            else:
                ended[run] = int(time)
        return [(method, name, time, ended.get(run)) for run, (method, name, time) in begun.items()]

    def backlog(self):
        """Connections that the kernel keeps for it, because nobody has accepted them."""
        if self.transport == "unix":
            table = subprocess.run(["ss", "-xlH"], capture_output=True, text=True).stdout
            rows = (line.split() for line in table.splitlines())
            return next((int(row[2]) for row in rows if row[4] == str(self.socket)), 0)
        local = f"0100007F:{self.port:04X}"
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
        return next((int(row[4].split(":")[1], 16) for row in rows if row[1] == local and row[3] == "0A"), 0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def most_at_once(runs):
    """The most runs at one moment."""
    moments = sorted((time, change) for _, _, begin, end in runs if end for time, change in ((begin, 1), (end, -1)))
    now = most = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


def times_run(runs):
    return Counter(name for _, name, _, _ in runs)


class Proxy:
    """Hostler or nginx on a free port."""

    def __init__(self, name, app, folder, options, limit=1000, keys=""):
        self.name = name
        self.port, self.admin_port = free_ports(2)
        template = HERE / ("nginx.conf" if name == "nginx" else "hostler.yaml")
        values = {
            "DIR": folder,
            "PORT": self.port,
            "ADMIN_PORT": self.admin_port,
            "LIMIT": limit,
            "KEYS": keys,
            "HOSTLER_ENDPOINT": f"unix:{app.socket}" if app.transport == "unix" else f"http://127.0.0.1:{app.port}",
            "NGINX_ENDPOINT": f"unix:{app.socket}" if app.transport == "unix" else f"127.0.0.1:{app.port}",
        }
        config = folder / template.name
        config.write_text(re.sub(r"@([A-Z_]+)@", lambda match: str(values.get(match[1], match[0])), template.read_text()))
        command = [find_nginx(), "-c", config] if name == "nginx" else [options.hostler, "serve", "-c", config]
        self.process = Process(name, command, os.sched_getaffinity(0), folder / f"{name}.log")
        try:
            wait_for(self.listens, 10, f"{name} listens")
        except BaseException:
            self.process.stop()
            raise

    def listens(self):
        self.process.check_alive()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def gauge(self, series):
        """A figure of Hostler's own; 0 when there is none yet."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(series + " "):
                    return float(line.rsplit(" ", 1)[1])
        return 0.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()


def find_nginx():
    # Debian keeps it where users do not look.
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
