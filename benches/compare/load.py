"""The load: wrk for HTTP/1.1, h2load for HTTP/2. Runs one of them and reads what it says about itself."""

import math
import re
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

from machine import Failure, Process

CONNECTIONS = 64
H2_CONNECTIONS = 10
H2_STREAMS = 10
IN_FLIGHT_MOST = max(CONNECTIONS, H2_CONNECTIONS * H2_STREAMS)


@dataclass
class Outcome:
    """What a run of the load says: all answers, those that were none or not 200, and latencies in milliseconds."""

    requests: int
    failed: int
    p50: float | None
    p99: float | None


class Load:
    """One run. It starts at once and lasts `seconds`."""

    def __init__(self, tool, url, seconds, folder, cpus):
        self.tool = tool
        self.seconds = seconds
        self.answers = folder / "answers.log"
        self.answers.unlink(missing_ok=True)
        self.process = Process(tool, self.command(url), cpus, folder / "load.log", stdout=subprocess.PIPE)

    def command(self, url):
        if self.tool == "wrk":
            return ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{self.seconds}s", "--timeout", "10s", "--latency", url]
        size = [f"-c{H2_CONNECTIONS}", f"-m{H2_STREAMS}", f"-D{self.seconds}"]
        return ["h2load", "-t1", *size, "--npn-list=h2", f"--log-file={self.answers}", url]

    def finish(self):
        """Waits for its end and reads the outcome."""
        try:
            output, _ = self.process.child.communicate(timeout=self.seconds + 20)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.tool} did not end: {self.seconds} s and 20 more were over") from None
        if self.process.child.returncode != 0:
            raise Failure(f"{self.tool} failed (status {self.process.child.returncode}):\n{self.process.last_words()}")
        text = output.decode()
        return read_wrk(text) if self.tool == "wrk" else read_h2load(text, self.answers)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()


def read_wrk(text):
    """wrk counts an answer of 400 or more as `Non-2xx or 3xx`, and socket errors by kind."""
    requests = re.search(r"^\s*(\d+) requests in ", text, re.M)
    if not requests:
        raise Failure(f"wrk said nothing about its requests:\n{text}")
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    failed = int(refused[1]) if refused else 0
    failed += sum(map(int, errors.groups())) if errors else 0
    return Outcome(int(requests[1]), failed, wrk_latency(text, 50), wrk_latency(text, 99))


def wrk_latency(text, percent):
    found = re.search(rf"^\s*{percent}%\s+([\d.]+)(us|ms|s|m)$", text, re.M)
    return float(found[1]) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[found[2]] if found else None


def read_h2load(text, answers):
    """h2load's totals, and its log: a line per answer with start, status and microseconds."""
    totals = re.search(r"requests: .*?(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    if not totals:
        raise Failure(f"h2load said nothing about its requests:\n{text}")
    if "Application protocol: h2\n" not in text:
        raise Failure(f"h2load did not get HTTP/2:\n{text}")
    done, _, failed, _, _ = map(int, totals.groups())
    times, others = read_answers(answers)
    return Outcome(done, failed + others, percentile(times, 50), percentile(times, 99))


def read_answers(path):
    """Milliseconds of each answer with status 200, and the number of those with another status."""
    times, others = [], 0
    with Path(path).open() as lines:
        for line in lines:
            _, status, micros = line.split()[:3]
            if status == "200":
                times.append(int(micros) / 1000)
            else:
                others += 1
    return times, others


def percentile(values, percent):
    """The nearest rank; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def median(values):
    """The median of what is there; None of nothing."""
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None
