"""One measurement of one peer: what lies between two readings of the clocks in the middle of a run of the load."""

import os
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import machine
import peers
from idle import bytes_per_connection
from load import Load
from machine import Failure
from origins import App, Origin

WARM_UP = 1  # seconds under load before the first reading
AFTER = 1  # seconds of load after the last reading
FILLS = 20  # times that a proxy is asked until its cache has the answer


@dataclass(frozen=True)
class Placement:
    """Where the proxy runs and on how many threads, and where load and origin run."""

    threads: int
    proxy: set
    load: set


class Bench:
    """What all measurements share."""

    def __init__(self, folder, binaries, scenarios=(), access_log=False, connections=1000):
        with_app = any(each.app for each in scenarios)
        self.with_files = any(each.file for each in scenarios)
        self.with_cache = any(each.cached for each in scenarios)
        self.with_gzip = any(each.encoding for each in scenarios)
        self.with_websockets = any(each.websocket for each in scenarios)
        self.folder = folder
        self.files = make_files(folder, scenarios)
        self.connections = connections  # the most that a proxy is asked to hold
        self.access_log = access_log
        self.load_binary = binaries.load
        proxy, load = machine.cores()
        everywhere = os.sched_getaffinity(0)
        self.pinned = Placement(1, proxy, load)
        self.free = Placement(2, everywhere, everywhere)
        self.certificate, self.private_key = peers.make_certificate(folder)
        self.app_socket = folder / "gunicorn.sock"
        self.stack = ExitStack()
        with ExitStack() as stack:
            self.in_memory = stack.enter_context(folder_in_memory()) if self.with_cache else folder
            self.origin = stack.enter_context(Origin(binaries.origin, folder, load))
            self.app = stack.enter_context(App(folder, load)) if with_app else None
            self.stack = stack.pop_all()

    def behind(self, scenario):
        return self.app if scenario.app else self.origin

    def counter(self, scenario, proxy):
        """Who knows how many requests were answered: the proxy itself where nobody is behind it."""
        return proxy if scenario.is_alone else self.behind(scenario)

    def expected(self, scenario):
        """The body of an answer."""
        return self.origin.get(scenario.path) if scenario.encoding else b"x" * scenario.answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()


@contextmanager
def folder_in_memory():
    """A folder whose files no disk hears of, where there is such a thing."""
    with tempfile.TemporaryDirectory(prefix="hostler-bench-", dir="/dev/shm" if os.path.isdir("/dev/shm") else "/var/tmp") as name:
        os.chmod(name, 0o755)  # Varnish's worker is another user when the bench runs as root
        yield Path(name)


def make_files(folder, scenarios):
    """A file for each size that is asked for, which is its name."""
    files = folder / "files"
    files.mkdir()
    for size in {each.answer for each in scenarios if each.file}:
        (files / str(size)).write_bytes(b"x" * size)
    return files


@dataclass
class Reading:
    """The clocks and counters at one moment, which is a while if the load has to be held for it."""

    began: float
    ended: float
    proxy: float
    ours: float
    machine: float
    served: int

    @classmethod
    def take(cls, bench, scenario, proxy, load):
        if not proxy.peer.counts_when_idle:
            return cls.of_now(bench, scenario, proxy, load, bench.counter(scenario, proxy).served)
        began = time.monotonic()
        with load.held():
            served = bench.counter(scenario, proxy).served()
            reading = cls.of_now(bench, scenario, proxy, load, lambda: served)
        return replace(reading, began=began)

    @classmethod
    def of_now(cls, bench, scenario, proxy, load, served):
        others = machine.tree(load.process.child.pid) + bench.behind(scenario).pids + [os.getpid()]
        now = time.monotonic()
        return cls(
            began=now,
            ended=now,
            proxy=machine.cpu_seconds(proxy.pids),
            ours=machine.cpu_seconds(others),
            machine=machine.busy_seconds(),
            served=served(),
        )


def measure(bench, scenario, peer, seconds, idle_connections):
    """One peer in one round, in a fresh process."""
    if scenario.kind == "idle":
        return measure_idle(bench, peer, idle_connections)
    if scenario.kind == "threads":
        return measure_threads(bench, scenario, peer, seconds)
    return measure_load(bench, scenario, peer, bench.pinned, seconds)


def measure_idle(bench, peer, count):
    with peers.Proxy(peer, bench, bench.pinned) as proxy:
        plain, tls = (bytes_per_connection(proxy, scheme, count) for scheme in ("http", "https"))
    return {"connections": count, "plain": plain, "tls": tls}


def measure_threads(bench, scenario, peer, seconds):
    """
    What a second thread brings. Load and origin need cores too, so requests per second cannot say it on a small machine:
    it is what the two threads could answer if both had nothing else to do, over what the one could.
    """
    one = measure_load(bench, scenario, peer, bench.pinned, seconds)
    bench.origin.move(bench.free.load)
    try:
        two = measure_load(bench, scenario, peer, bench.free, seconds)
    finally:
        bench.origin.move(bench.pinned.load)
    figures = {f"{name}_{n}": run[name] for n, run in ((1, one), (2, two)) for name in ("cpu_us", "rate", "p99_ms")}
    noise = max(one["others_busy"], two["others_busy"])
    growth = bench.free.threads * one["cpu_us"] / two["cpu_us"]
    return figures | {"growth": growth, "others_busy": noise, "requests": one["requests"] + two["requests"]}


def measure_load(bench, scenario, peer, placement, seconds):
    """One run of the load; connects and warm-up lie before the first reading."""
    with peers.Proxy(peer, bench, placement) as proxy:
        counter = bench.counter(scenario, proxy)
        agreed, size = first_answer(bench, scenario, proxy)
        before = counter.served()
        with from_cache(bench, scenario), Load(scenario, proxy, WARM_UP + seconds + AFTER, bench, placement.load) as load:
            time.sleep(WARM_UP)
            first = Reading.take(bench, scenario, proxy, load)
            time.sleep(seconds)
            last = Reading.take(bench, scenario, proxy, load)
            memory = machine.memory_bytes(proxy.pids)
            outcome = load.finish()
        check_outcome(scenario, outcome, counter.served() - before)
        proxy.check(scenario, bench.expected(scenario))
    if bench.access_log and not scenario.websocket:
        check_log(outcome.requests, proxy.logged())
    return figures(first, last, outcome) | {"memory": memory, "tls_agreed": agreed, "size": size if scenario.encoding else None}


def first_answer(bench, scenario, proxy):
    """Looks at an answer in full, as Proxy.check. A proxy that is to answer from its cache is asked until it does."""
    expected = bench.expected(scenario)
    seen = proxy.check(scenario, expected)
    if not scenario.cached:
        return seen
    for _ in range(FILLS):
        before = bench.origin.served()
        seen = proxy.check(scenario, expected)
        if bench.origin.served() == before:
            return seen
        time.sleep(0.05)  # an answer may be put into the cache after its client has it
    raise Failure(f"{proxy.name} does not answer from its cache: {FILLS} requests for {scenario.path} all reached the origin")


@contextmanager
def from_cache(bench, scenario):
    """Fails if anything reached the origin meanwhile, where the proxy is to answer from its cache."""
    before = bench.origin.served()
    yield
    asked = bench.origin.served() - before
    if scenario.cached and asked:
        raise Failure(f"{asked} requests reached the origin, though the answer was in the cache")


def figures(first, last, outcome):
    served = last.served - first.served
    if served == 0:
        raise Failure("nothing was answered between the readings")
    elapsed = last.began - first.ended
    cpu = last.proxy - first.proxy
    return {
        "cpu_us": cpu / served * 1e6,
        "rate": served / elapsed,
        "p50_ms": outcome.p50,
        "p99_ms": outcome.p99,
        "proxy_busy": cpu / elapsed,
        "others_busy": max(0, (last.machine - first.machine - cpu - (last.ours - first.ours)) / elapsed),
        "requests": outcome.requests,
        "full": outcome.full,
        "resumed": outcome.resumed,
    }


def check_outcome(scenario, outcome, reached):
    """Every answer was a 200, came from whoever counts them, and over the kind of connection that was asked for."""
    if outcome.failed:
        why = f": {outcome.why}" if outcome.why else ""
        raise Failure(f"{outcome.failed} of {outcome.failed + outcome.requests} requests failed{why}")
    if outcome.requests == 0:
        raise Failure("no request was answered")
    # Those under way when the load stopped have reached the origin and were not answered to anybody.
    if not outcome.requests <= reached <= outcome.requests + scenario.in_flight:
        counted = "were counted by the proxy" if scenario.is_alone else "reached the origin"
        raise Failure(f"{outcome.requests} requests were answered, but {reached} {counted}")
    if scenario.opens == "full" and outcome.full != outcome.requests:
        raise Failure(f"{outcome.requests - outcome.full} of {outcome.requests} handshakes were no full ones")
    # The first handshake of each client has no ticket.
    if scenario.opens == "resumed" and outcome.resumed < outcome.requests - scenario.connections:
        raise Failure(f"only {outcome.resumed} of {outcome.requests} handshakes were resumed")


def check_log(requests, lines):
    """A line for each answer; those of the bench's own checks and of requests cut at the end come on top."""
    if not requests <= lines <= requests * 1.01 + 200:
        raise Failure(f"{requests} requests were answered, but the access log has {lines} lines")
