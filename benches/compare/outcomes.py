"""Reads what a run of the load says about itself."""

import json
import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

from machine import Failure


@dataclass
class Outcome:
    """All answers, those that were none or not 200, latencies in milliseconds, and how connections were opened."""

    requests: int
    failed: int
    p50: float | None
    p99: float | None
    full: int = 0
    resumed: int = 0
    why: str = ""


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


def read_bench_load(text):
    """One line of JSON (load.rs)."""
    try:
        said = json.loads(text)
        p50, p99 = said["p50_us"] / 1000, said["p99_us"] / 1000
        return Outcome(said["requests"], said["failed"], p50, p99, said["full"], said["resumed"], said["why"])
    except (ValueError, KeyError) as error:
        raise Failure(f"bench-load said nothing about its requests ({error}):\n{text}") from None


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
