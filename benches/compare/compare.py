#!/usr/bin/env python3
"""
Hostler side by side with nginx, HAProxy and Varnish on this machine: CPU time per request, throughput, latency, memory.

The proxy has one core to itself, load and origin have the others. A round measures every peer once, each in a fresh
process, and every round begins with another peer; ratios are taken within a round, since a machine's mood changes slower
than that. A round counts only if every answer was a 200 and as many requests reached the origin as were answered.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

import binaries
import machine
import report
import summary
from machine import Failure
from measurement import AFTER, WARM_UP, Bench, measure
from peers import PROGRAMS
from scenarios import LETTERS, able, chosen

IDLE_ROUNDS = 3  # enough for memory, which takes long to measure and hardly varies
SPARE_CONNECTIONS = 200
AROUND_A_RUN = 1  # seconds for starting, checking and stopping


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped by SIGTERM."))
    try:
        scenarios = chosen(options.scenarios)
        contestants = contestants_of(options, scenarios)
        binaries.check_tools(needed(scenarios, contestants))
        ours = binaries.build(options, "hostler" in [peer.name for peer in contestants])
        return run(options, ours, scenarios, contestants_of(options, scenarios))
    except Failure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


def arguments():
    parser = argparse.ArgumentParser(prog="make bench-compare", description=__doc__.strip().splitlines()[0])
    parser.add_argument(
        "--scenarios", default=LETTERS, metavar="LETTERS", help=f"which of {LETTERS} (default: all); README.md has the list"
    )
    parser.add_argument("--rounds", type=positive, default=5, metavar="N", help="rounds of each scenario (default 5)")
    parser.add_argument("--seconds", type=positive, default=4, metavar="S", help="length of a measurement (default 4)")
    parser.add_argument("--access-log", action="store_true", help="every peer writes a line of JSON for each request")
    parser.add_argument(
        "--idle-connections", type=positive, metavar="N", help="for scenario k (default 9000, or what the limit of files allows)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round there")
    binaries.add_options(parser)
    options = parser.parse_args()
    unknown = set(options.scenarios) - set(LETTERS)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    return options


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def contestants_of(options, scenarios):
    """Who takes part in any of these. Varnish's access log is written by another program, which is not compared."""
    found = able(binaries.wanted_peers(options), scenarios)
    return [peer for peer in found if not (options.access_log and peer.kind == "varnish")]


def needed(scenarios, contestants):
    """What is to be there before anything is built."""
    tools = {"openssl"} | {each.tool for each in scenarios if each.tool and each.tool != "bench-load"}
    tools |= {tool for peer in contestants for tool in PROGRAMS[peer.kind]}
    return tools | ({"gunicorn"} if any(each.app for each in scenarios) else set())


def run(options, ours, scenarios, contestants):
    files = machine.allow_many_files()
    idle_connections = idle_count(options.idle_connections, files)
    estimate = sum(
        seconds_of(each, options.seconds, idle_connections) * rounds_of(each, options.rounds) * taking_part(each, contestants)
        for each in scenarios
    )
    signal.signal(signal.SIGALRM, on_time_out)
    signal.alarm(int(120 + 5 * estimate))
    with tempfile.TemporaryDirectory(prefix="hostler-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's worker is another user when the bench runs as root
        with Bench(folder, ours, scenarios, options.access_log, idle_connections + SPARE_CONNECTIONS) as bench:
            introduce(bench, contestants, options)
            print(f"This takes about {max(1, round(estimate / 60))} min.", flush=True)
            rounds = [
                each
                for scenario in scenarios
                for each in measure_all(bench, scenario, contestants, options, idle_connections)
            ]
    return conclude(rounds, scenarios, contestants, options)


def idle_count(asked, files):
    """9,000 unless the limit of open files is lower: each connection is a file of the bench and one of the proxy."""
    most = files // 2 - 500  # HAProxy reserves two for each
    if asked and asked > most:
        raise Failure(f"{asked} idle connections need more than the {files} open files allowed (ulimit -Hn).")
    if not asked and most < 9000:
        print(f"Scenario k has {most} connections instead of 9000: {files} open files are allowed (ulimit -Hn).")
    return asked or min(9000, most)


def seconds_of(scenario, seconds, idle_connections):
    """About how long one peer takes in one round."""
    if scenario.kind == "idle":
        return 5 + idle_connections * 0.003
    runs = 2 if scenario.kind == "threads" else 1
    return runs * (WARM_UP + seconds + AFTER + AROUND_A_RUN)


def rounds_of(scenario, rounds):
    return min(rounds, IDLE_ROUNDS) if scenario.kind == "idle" else rounds


def taking_part(scenario, contestants):
    return sum(scenario.can_do(peer.kind) for peer in contestants)


def on_time_out(*_):
    # No Failure: those end a round, this ends all.
    sys.exit("The bench took far longer than it should; stopped.")


def introduce(bench, contestants, options):
    print(machine.describe())
    for peer in contestants:
        print(f"{peer.name}: {peer.version()}")
    pinned = bench.pinned
    print(f"proxy on core {format_cores(pinned.proxy)}, load and origin on {format_cores(pinned.load)}; ", end="")
    print(f"{options.rounds} rounds, {options.seconds} s each after {WARM_UP} s of warm-up; ", end="")
    print(f"access log {'on' if options.access_log else 'off'}", flush=True)


def format_cores(cpus):
    return ",".join(map(str, sorted(cpus)))


def measure_all(bench, scenario, contestants, options, idle_connections):
    """All rounds of a scenario, with a line for each as it ends."""
    rounds = []
    contestants = [peer for peer in contestants if scenario.can_do(peer.kind)]
    print(f"\n{scenario.key}  {scenario.title}", flush=True)
    for number in range(rounds_of(scenario, options.rounds)):
        for peer in turned(contestants, number):
            outcome = {"scenario": scenario.key, "round": number + 1, "peer": peer.name}
            try:
                outcome |= measure(bench, scenario, peer, options.seconds, idle_connections)
                outcome["valid"] = True
            except (Failure, OSError) as failure:
                bench.behind(scenario).process.check_alive()
                outcome |= {"valid": False, "why": str(failure)}
            rounds.append(outcome)
            print(f"   round {number + 1}  {peer.name:<8} {report.in_short(outcome)}", flush=True)
    return rounds


def turned(contestants, number):
    """A B C, then B C A, then C A B."""
    first = number % len(contestants)
    return contestants[first:] + contestants[:first]


def conclude(rounds, scenarios, contestants, options):
    valid = [each for each in rounds if each["valid"]]
    print("\nMedian (lowest-highest) of the valid rounds; ratios within the same round")
    for scenario in scenarios:
        print()
        for line in report.table(scenario, [each for each in valid if each["scenario"] == scenario.key]):
            print(line)
    print()
    for line in summary.markdown(scenarios, [peer.name for peer in contestants], valid):
        print(line)
    answered = sum(each.get("requests", 0) for each in valid)
    print(f"\n{len(valid)} of {len(rounds)} rounds valid, {answered} requests answered with 200")
    if options.json:
        write_json(options, contestants, rounds)
    return 0 if len(valid) == len(rounds) else 1


def write_json(options, contestants, rounds):
    about = {
        "machine": machine.describe(),
        "peers": {peer.name: peer.version() for peer in contestants},
        "seconds": options.seconds,
        "access_log": options.access_log,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    options.json.write_text(json.dumps(about | {"rounds": rounds}, indent=2) + "\n")
    print(f"Every round: {options.json}")


if __name__ == "__main__":
    sys.exit(main())
