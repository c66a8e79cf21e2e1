#!/usr/bin/env python3
"""
Hostler side by side with nginx on this machine: CPU time per request, throughput, latency, memory per connection.

The proxy has one core to itself, load and origin have the others. A round measures every peer once, each in a fresh
process, and every second round in the opposite order; ratios are taken within a round, since a machine's mood changes
slower than that. A round counts only if every answer was a 200 and as many requests reached the origin as were answered.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import machine
import peers
import report
from idle import bytes_per_connection
from load import CONNECTIONS, H2_CONNECTIONS, H2_STREAMS, IN_FLIGHT_MOST, Load
from machine import Failure

ROOT = Path(__file__).resolve().parent.parent.parent
WARM_UP = 1  # seconds under load before the first reading
AFTER = 1  # seconds of load after the last reading

PACKAGES = {"nginx": "nginx-light", "wrk": "wrk", "h2load": "nghttp2-client", "openssl": "openssl"}


@dataclass(frozen=True)
class Scenario:
    """One kind of measurement."""

    key: str
    title: str
    tool: str | None
    scheme: str = "http"
    path: str = "/"


SCENARIOS = [
    Scenario("a", f"HTTP/1.1 keep-alive, {CONNECTIONS} connections, origin over TCP, 1 KiB", "wrk"),
    Scenario("b", f"HTTP/1.1 keep-alive, {CONNECTIONS} connections, origin over a unix socket, 1 KiB", "wrk", path="/unix/"),
    Scenario("c", f"HTTP/1.1 over TLS 1.3, {CONNECTIONS} connections, origin over TCP, 1 KiB", "wrk", "https"),
    Scenario("d", f"HTTP/2 over TLS 1.3, {H2_CONNECTIONS} connections x {H2_STREAMS} streams, 1 KiB", "h2load", "https"),
    Scenario("k", "memory per idle keep-alive connection", None),
]


class Bench:
    """What all measurements share."""

    def __init__(self, folder, origin_binary):
        self.folder = folder
        self.proxy_cpus, self.load_cpus = machine.cores()
        self.certificate, self.private_key = peers.make_certificate(folder)
        self.origin = peers.Origin(origin_binary, folder, self.load_cpus)


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped by SIGTERM."))
    try:
        check_tools(options)
        build(options)
        return run(options)
    except Failure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


def arguments():
    parser = argparse.ArgumentParser(prog="make bench-compare", description=__doc__.strip().splitlines()[0])
    parser.add_argument("--only", choices=["nginx", "hostler"], help="measure this peer alone")
    parser.add_argument("--scenarios", default="abcdk", metavar="LETTERS", help="which of abcdk (default: all)")
    parser.add_argument("--rounds", type=positive, default=5, metavar="N", help="rounds of each scenario (default 5)")
    parser.add_argument("--seconds", type=positive, default=3, metavar="S", help="length of a measurement (default 3)")
    parser.add_argument(
        "--idle-connections", type=positive, default=1000, metavar="N", help="for scenario k (default 1000; 9000 is finer)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round there")
    parser.add_argument("--hostler", type=Path, metavar="BINARY", help="measure this binary instead of building it")
    parser.add_argument("--origin", type=Path, metavar="BINARY", help="use this origin instead of building it")
    options = parser.parse_args()
    unknown = set(options.scenarios) - {each.key for each in SCENARIOS}
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    return options


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def chosen(options):
    return [each for each in SCENARIOS if each.key in options.scenarios]


def check_tools(options):
    """Names what is missing; installs nothing."""
    needed = {"openssl"} | {each.tool for each in chosen(options) if each.tool}
    missing = [tool for tool in sorted(needed) if not shutil.which(tool)]
    if options.only != "hostler" and not peers.find_nginx():
        missing.append("nginx")
    if missing:
        packages = " ".join(PACKAGES[tool] for tool in missing)
        raise Failure(f"Missing: {', '.join(missing)}. Install them (Debian: sudo apt-get install {packages}).")


def build(options):
    """The release binaries that were not given."""
    targets = [] if options.origin else ["--example", "bench-origin"]
    if options.only != "nginx" and not options.hostler:
        targets += ["--bin", "hostler"]
    if targets:
        print("Building (release; the first time takes minutes)", flush=True)
        if subprocess.run(["cargo", "build", "--release", "--locked", *targets], cwd=ROOT).returncode != 0:
            raise Failure("The build failed.")
    release = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release"
    options.origin = (options.origin or release / "examples" / "bench-origin").resolve()
    options.hostler = (options.hostler or release / "hostler").resolve()


def run(options):
    files = machine.allow_many_files()
    if "k" in options.scenarios and options.idle_connections + 500 > files:
        raise Failure(f"{options.idle_connections} connections need more than the {files} open files allowed (ulimit -Hn).")
    contestants = [peers.nginx()] if options.only != "hostler" else []
    contestants += [peers.hostler(options.hostler)] if options.only != "nginx" else []
    signal.signal(signal.SIGALRM, on_time_out)
    signal.alarm(time_limit(options, len(contestants)))
    with tempfile.TemporaryDirectory(prefix="hostler-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's worker is another user when the bench runs as root
        bench = Bench(folder, options.origin)
        with bench.origin:
            introduce(bench, contestants, options)
            rounds = [each for scenario in chosen(options) for each in measure(bench, scenario, contestants, options)]
    return conclude(rounds, contestants, options)


def on_time_out(*_):
    # No Failure: those end a round, this ends all.
    sys.exit("The bench took far longer than it should; stopped.")


def time_limit(options, peer_count):
    each_load = WARM_UP + options.seconds + AFTER + 30
    each_idle = 60 + options.idle_connections // 20
    per_round = sum(each_load if each.tool else each_idle for each in chosen(options))
    return 60 + per_round * options.rounds * peer_count


def introduce(bench, contestants, options):
    print(machine.describe())
    for peer in contestants:
        print(f"{peer.name}: {peer.version()}")
    print(f"proxy on core {format_cores(bench.proxy_cpus)}, load and origin on {format_cores(bench.load_cpus)}; ", end="")
    print(f"{options.rounds} rounds, {options.seconds} s each after {WARM_UP} s of warm-up", flush=True)


def format_cores(cpus):
    return ",".join(map(str, sorted(cpus)))


def measure(bench, scenario, contestants, options):
    """All rounds of a scenario, with a line for each as it ends."""
    rounds = []
    print(f"\n{scenario.key}  {scenario.title}", flush=True)
    for number in range(1, options.rounds + 1):
        order = contestants if number % 2 else contestants[::-1]
        for peer in order:
            outcome = {"scenario": scenario.key, "round": number, "peer": peer.name}
            try:
                with peer.start(bench) as proxy:
                    outcome |= measure_load(bench, scenario, proxy, options.seconds) if scenario.tool else idle(proxy, options)
                outcome["valid"] = True
            except (Failure, OSError) as failure:
                bench.origin.process.check_alive()
                outcome |= {"valid": False, "why": str(failure)}
            rounds.append(outcome)
            print(f"   round {number}  {peer.name:<8} {in_short(outcome)}", flush=True)
    return rounds


def idle(proxy, options):
    count = options.idle_connections
    return {
        "connections": count,
        "plain": bytes_per_connection(proxy, "http", count),
        "tls": bytes_per_connection(proxy, "https", count),
    }


@dataclass
class Reading:
    """The clocks and counters at one moment."""

    time: float
    proxy: float
    ours: float
    machine: float
    served: int

    @classmethod
    def take(cls, bench, proxy, load):
        others = machine.tree(load.process.child.pid) + [bench.origin.process.child.pid, os.getpid()]
        return cls(
            time=time.monotonic(),
            proxy=machine.cpu_seconds(proxy.pids),
            ours=machine.cpu_seconds(others),
            machine=machine.busy_seconds(),
            served=bench.origin.served(),
        )


def measure_load(bench, scenario, proxy, seconds):
    """One run of the load; what is reported lies between two readings in its middle, connects and warm-up left out."""
    agreed = proxy.check(scenario.scheme, scenario.path)
    before = bench.origin.served()
    url = proxy.url(scenario.scheme, scenario.path)
    with Load(scenario.tool, url, WARM_UP + seconds + AFTER, bench.folder, bench.load_cpus) as load:
        time.sleep(WARM_UP)
        first = Reading.take(bench, proxy, load)
        time.sleep(seconds)
        last = Reading.take(bench, proxy, load)
        outcome = load.finish()
    check(outcome, bench.origin.served() - before)
    proxy.check(scenario.scheme, scenario.path)
    served = last.served - first.served
    if served == 0:
        raise Failure("nothing was answered between the readings")
    elapsed = last.time - first.time
    cpu = last.proxy - first.proxy
    return {
        "cpu_us": cpu / served * 1e6,
        "rate": served / elapsed,
        "p50_ms": outcome.p50,
        "p99_ms": outcome.p99,
        "proxy_busy": cpu / elapsed,
        "others_busy": max(0, (last.machine - first.machine - cpu - (last.ours - first.ours)) / elapsed),
        "requests": outcome.requests,
        "tls_agreed": agreed,
    }


def check(outcome, reached):
    """Every answer was a 200, and came from the origin."""
    if outcome.failed:
        raise Failure(f"{outcome.failed} of {outcome.requests} requests failed")
    if outcome.requests == 0:
        raise Failure("no request was answered")
    # Those under way when the load stopped have reached the origin and were not answered to anybody.
    if not outcome.requests <= reached <= outcome.requests + IN_FLIGHT_MOST:
        raise Failure(f"{outcome.requests} requests were answered, but {reached} reached the origin")


def in_short(outcome):
    if not outcome["valid"]:
        return f"NOT VALID: {outcome['why']}"
    if "plain" in outcome:
        return f"plain {outcome['plain'] / 1024:.2f} KiB, TLS {outcome['tls'] / 1024:.2f} KiB"
    words = f"{outcome['cpu_us']:.2f} us/req, {outcome['rate']:.0f} req/s, proxy {outcome['proxy_busy']:.0%} busy"
    if outcome["others_busy"] > 0.15:
        words += f"  (other programs took {outcome['others_busy']:.2f} cores: noisy)"
    return words


def conclude(rounds, contestants, options):
    valid = [each for each in rounds if each["valid"]]
    print("\nMedian (lowest-highest) of the valid rounds; ratios within the same round")
    for scenario in chosen(options):
        print()
        for line in report.table(scenario, [each for each in valid if each["scenario"] == scenario.key]):
            print(line)
    answered = sum(each.get("requests", 0) for each in valid)
    print(f"\n{len(valid)} of {len(rounds)} rounds valid, {answered} requests answered with 200")
    if options.json:
        about = {"machine": machine.describe(), "peers": {peer.name: peer.version() for peer in contestants}}
        options.json.write_text(json.dumps(about | {"rounds": rounds}, indent=2) + "\n")
        print(f"Every round: {options.json}")
    return 0 if len(valid) == len(rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
