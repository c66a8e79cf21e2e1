"""System calls per request: strace counts those of a proxy under load."""

import re
import signal
import subprocess
import time

from load import Load
from machine import Failure, Process, wait_for
from measurement import first_answer, from_cache
from peers import Proxy
from scenarios import MIB


WARM_UP = 1  # seconds of load before strace comes
AFTER = 2  # seconds of load for its coming and going
SLOW = 4  # with large bodies a second has few requests


def count(bench, scenario, peer, seconds):
    """
    The calls by name, each over the requests that were answered meanwhile. strace makes the proxy several times slower,
    which changes how many requests it finds at once: what is called once for several is called a little more often here.
    """
    seconds *= SLOW if scenario.moved >= MIB else 1
    summary = bench.folder / "strace.txt"
    with Proxy(peer, bench, bench.pinned) as proxy:
        counter = bench.counter(scenario, proxy)
        first_answer(bench, scenario, proxy)
        with from_cache(bench, scenario), Load(scenario, proxy, WARM_UP + seconds + AFTER, bench, bench.pinned.load) as load:
            time.sleep(WARM_UP)
            with Strace(proxy.pids, summary, bench) as strace:
                before = counter.served()
                time.sleep(seconds)
                served = counter.served() - before
                strace.end()
            outcome = load.finish()
    if outcome.failed or not served:
        raise Failure(f"{outcome.failed} requests failed, {served} were served {outcome.why}")
    return {name: calls / served for name, calls in read_summary(summary.read_text()).items()}


class Strace:
    """strace on running processes and their threads, counting."""

    def __init__(self, pids, summary, bench):
        log = bench.folder / "strace.log"
        log.unlink(missing_ok=True)
        each = [word for pid in pids for word in ("-p", pid)]
        self.process = Process("strace", ["strace", "-c", "-f", "-o", summary, *each], bench.pinned.load, log)
        try:
            wait_for(lambda: self.is_attached(len(pids)), 10, "strace is attached", every=0.001)
        except BaseException:
            self.process.stop()
            raise

    def is_attached(self, processes):
        self.process.check_alive()
        return self.process.log.read_text().count(" attached") >= processes

    def end(self):
        """Lets go of the proxy; then the summary is written."""
        self.process.child.send_signal(signal.SIGINT)
        try:
            self.process.child.wait(10)
        except subprocess.TimeoutExpired:
            raise Failure("strace did not end") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()


def read_summary(text):
    """Calls by name, from lines of `% time, seconds, usecs/call, calls, errors, syscall`; errors may be empty."""
    rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?([a-z_]\w*)$", text, re.M)
    found = {name: int(calls) for calls, name in rows if name != "total"}
    if not found:
        raise Failure(f"strace counted nothing:\n{text}")
    return found


def in_words(calls, most=8):
    ordered = sorted(calls.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {value:.2f}" for name, value in ordered[:most] if value >= 0.005)
    return f"{sum(calls.values()):.2f} per request: {shown}"
