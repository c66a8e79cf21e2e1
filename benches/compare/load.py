"""The load: wrk for HTTP/1.1, h2load for HTTP/2, and bench-load (load.rs) where each request has a connection of its own."""

import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

from machine import Failure, Process
from outcomes import read_bench_load, read_h2load, read_wrk

UPLOAD = Path(__file__).resolve().parent / "upload.lua"


class Load:
    """One run. It starts at once and lasts `seconds`."""

    def __init__(self, scenario, proxy, seconds, bench, cpus):
        self.tool = scenario.tool
        self.seconds = seconds
        self.answers = bench.folder / "answers.log"
        self.answers.unlink(missing_ok=True)
        command = COMMANDS[self.tool](scenario, proxy, seconds, self.answers, bench.load_binary)
        self.process = Process(self.tool, command, cpus, bench.folder / "load.log", stdout=subprocess.PIPE)

    def finish(self):
        """Waits for its end and reads the outcome."""
        try:
            output, _ = self.process.child.communicate(timeout=self.seconds + 20)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.tool} did not end: {self.seconds} s and 20 more were over") from None
        if self.process.child.returncode != 0:
            raise Failure(f"{self.tool} failed (status {self.process.child.returncode}):\n{self.process.last_words()}")
        text = output.decode()
        if self.tool == "h2load":
            return read_h2load(text, self.answers)
        return read_wrk(text) if self.tool == "wrk" else read_bench_load(text)

    @contextmanager
    def held(self):
        """It sends nothing meanwhile."""
        self.process.child.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.child.send_signal(signal.SIGCONT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()


def wrk(scenario, proxy, seconds, *_):
    script = ["-s", UPLOAD] if scenario.method == "POST" else []
    script += ["-H", f"Accept-Encoding: {scenario.encoding}"] if scenario.encoding else []
    size = ["-t1", f"-c{scenario.connections}", f"-d{seconds}s"]
    return ["wrk", *size, *script, "--timeout", "10s", "--latency", proxy.url(scenario)]


def h2load(scenario, proxy, seconds, answers, _):
    size = ["-t1", f"-c{scenario.connections}", f"-m{scenario.streams}", f"-D{seconds}"]
    return ["h2load", *size, "--npn-list=h2", f"--log-file={answers}", proxy.url(scenario)]


def bench_load(scenario, proxy, seconds, _, binary):
    port = proxy.plain_port if scenario.scheme == "http" else proxy.tls_port
    return [binary, scenario.opens, f"127.0.0.1:{port}", scenario.path, scenario.connections, seconds]


COMMANDS = {"wrk": wrk, "h2load": h2load, "bench-load": bench_load}
