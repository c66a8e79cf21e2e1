#!/usr/bin/env python3
"""
What a request costs besides time: system calls of every peer (strace), and instructions in user space with the functions
they are spent in for Hostler (valgrind's callgrind). These figures do not depend on how busy the machine is.
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

import binaries
import instructions
import machine
import syscalls
from compare import positive
from machine import Failure
from measurement import Bench
from peers import PROGRAMS
from scenarios import able, chosen

# Those with a load; and those that h2load can send a number of requests to.
CAN_COUNT = {"syscalls": "abcdefghijmnopqrsvwxy", "instructions": "abcdmnopvwxy"}
BY_DEFAULT = {"syscalls": "abcdefghij", "instructions": "ad"}


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped by SIGTERM."))
    try:
        return run(options)
    except Failure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


def arguments():
    parser = argparse.ArgumentParser(prog="make bench-profile", description=__doc__.strip())
    parser.add_argument("--syscalls", action="store_true", help="system calls per request (default: both)")
    parser.add_argument("--instructions", action="store_true", help="instructions per request, for Hostler's binaries")
    parser.add_argument(
        "--scenarios", metavar="LETTERS", help="default: abcdefghij for system calls, ad for instructions (abcdmnopvwxy are possible)"
    )
    parser.add_argument("--seconds", type=positive, default=2, metavar="S", help="length of a run under strace (default 2)")
    parser.add_argument(
        "--requests", type=positive, default=5000, metavar="N", help="requests of a run under valgrind (default 5000)"
    )
    binaries.add_options(parser)
    return parser.parse_args()


def run(options):
    both = options.syscalls == options.instructions
    kinds = [kind for kind in CAN_COUNT if both or getattr(options, kind)]
    scenarios = {kind: scenarios_of(kind, options.scenarios) for kind in kinds}
    peers = {kind: able(peers_of(kind, options), scenarios[kind]) for kind in kinds}
    binaries.check_tools({tool for kind in kinds for tool in needed(kind, scenarios[kind], peers[kind])})
    names = {peer.name for kind in kinds for peer in peers[kind]}
    ours = binaries.build(options, "hostler" in names)
    machine.allow_many_files()
    with tempfile.TemporaryDirectory(prefix="hostler-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's worker is another user when the bench runs as root
        with Bench(folder, ours, [each for kind in kinds for each in scenarios[kind]]) as bench:
            outcomes = [COUNT[kind](bench, scenarios[kind], peers_of(kind, options), options) for kind in kinds]
    return 0 if all(outcomes) else 1


def scenarios_of(kind, letters):
    return [each for each in chosen(letters or BY_DEFAULT[kind]) if each.key in CAN_COUNT[kind]]


def peers_of(kind, options):
    peers = binaries.wanted_peers(options)
    return peers if kind == "syscalls" else [peer for peer in peers if peer.kind == "hostler"]


def needed(kind, scenarios, peers):
    tools = {"openssl", "strace"} if kind == "syscalls" else {"openssl", "valgrind", "h2load"}
    tools |= {tool for peer in peers for tool in PROGRAMS[peer.kind]}
    if kind == "syscalls":
        tools |= {each.tool for each in scenarios if each.tool != "bench-load"}
        tools |= {"gunicorn"} if any(each.app for each in scenarios) else set()
    return tools


def count_syscalls(bench, scenarios, peers, options):
    def count(scenario, peer):
        return [syscalls.in_words(syscalls.count(bench, scenario, peer, options.seconds))]

    print("System calls, by strace")
    return count_all(scenarios, peers, count)


def count_instructions(bench, scenarios, peers, options):
    def count(scenario, peer):
        return instructions.in_words(instructions.count(bench, scenario, peer, options.requests))

    print("\nInstructions in user space, by callgrind")
    return count_all(scenarios, peers, count)


COUNT = {"syscalls": count_syscalls, "instructions": count_instructions}


def count_all(scenarios, peers, count):
    """Prints what `count` finds for every peer in every scenario. False if something could not be counted."""
    all_is_well = True
    for scenario in scenarios:
        print(f"\n{scenario.key}  {scenario.title}", flush=True)
        for peer in (peer for peer in peers if scenario.can_do(peer.kind)):
            try:
                first, *more = count(scenario, peer)
            except (Failure, OSError) as failure:
                first, more, all_is_well = f"NOT COUNTED: {failure}", [], False
            print(f"   {peer.name:<8} {first}", flush=True)
            for line in more:
                print(f"            {line}", flush=True)
    return all_is_well


if __name__ == "__main__":
    sys.exit(main())
