#!/usr/bin/env python3
"""
What hostile clients can take from honest ones: attacks, connections dropped in every phase, and descriptors that run out.
See README.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from gateway import LIMITS, PYTHON, ROOT, SPOOL, App
from machine import Failure, allow_many_files, describe
from peers import make_certificate

import descriptors
import drops
import h1_attacks
import h2_attacks
import measure

ATTACKS = h2_attacks.ATTACKS + h1_attacks.ATTACKS


def main():
    options = arguments()
    try:
        prepare(options)
        allow_many_files()
        print(describe())
        with tempfile.TemporaryDirectory(prefix="hostler-bench-") as name:
            folder = Path(name)
            certificate = make_certificate(folder)
            with App(folder) as app:
                all_is_well, results = MEASUREMENTS[options.measurement](options, app, certificate)
        if options.json:
            options.json.write_text(json.dumps({"machine": describe(), "results": results}, indent=1, default=vars) + "\n")
        return 0 if all_is_well else 1
    except Failure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


def arguments():
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__.strip())
    parser.add_argument("measurement", choices=sorted(MEASUREMENTS))
    parser.add_argument("--seconds", type=int, default=20, metavar="S", help="length of each run (default: 20)")
    parser.add_argument("--quiet", type=int, metavar="S", help="length of the run without the attack (default: as long)")
    parser.add_argument("--only", metavar="NAMES", help="attacks or phases whose names begin so, separated by commas")
    parser.add_argument("--rate", type=float, default=60, metavar="N", help="requests a second of the honest client")
    parser.add_argument("--limits", choices=sorted(LIMITS), default="default", help="the limits of the gateway's file")
    parser.add_argument("--connections", type=int, default=200_000, metavar="N", help="drops: how many in all")
    parser.add_argument("--descriptors", type=int, metavar="N", help="ulimit -n of the gateway (descriptors: 256)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything that was measured")
    parser.add_argument("--hostler", type=Path, metavar="BINARY", help="measure this binary instead of building it")
    options = parser.parse_args()
    options.quiet = options.quiet or options.seconds
    return options


def prepare(options):
    if not PYTHON.exists():
        raise Failure("There is no .venv with gunicorn: run tests/python/venv.sh")
    if not options.hostler:
        print("Building (release; the first time takes minutes)", flush=True)
        if subprocess.run(["cargo", "build", "--release", "--locked", "--bin", "hostler"], cwd=ROOT).returncode != 0:
            raise Failure("The build failed.")
        options.hostler = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "hostler"
    options.hostler = options.hostler.resolve()


def print_row(cells, widths):
    print("  ".join(str(cell).ljust(width) for cell, width in zip(cells, widths)).rstrip(), flush=True)


def attacks(options, app, certificate):
    """Each attack, with an honest client beside it."""
    changed = [f"{key}: {{ {text} }}" for key, text in (("limits", LIMITS[options.limits]), ("spool", SPOOL[options.limits])) if text]
    print(f"Limits: {', '.join(changed) or 'the defaults'}. {options.quiet} s quiet, {options.seconds} s with the attack.\n")
    names, widths = zip(*measure.HEADING)
    print_row(names, widths)
    results = []
    for attack in measure.chosen(ATTACKS, options.only):
        try:
            result = measure.measure(attack, app, certificate, options)
        except Failure as failure:
            # The gateway has ended, perhaps. The others are measured all the same.
            if not results and "does not take the configuration" in str(failure):
                raise
            print_row([attack.name, f"NOT ok: {failure}"], widths)
            results.append({"name": attack.name, "failure": str(failure), "verdicts": {"survived": False}})
            continue
        print_row(measure.row(result), widths)
        for line in measure.details(attack, result):
            print(f"    {line}", flush=True)
        results.append(result.as_json())
    good = sum(all(result["verdicts"].values()) for result in results)
    print(f"\n{good} of {len(results)} ok")
    return good == len(results), results


MEASUREMENTS = {"attacks": attacks, "drops": drops.run, "descriptors": descriptors.run}

if __name__ == "__main__":
    sys.exit(main())
