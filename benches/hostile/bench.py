#!/usr/bin/env python3
"""
The hostile requests and answers of tests/hostile through Hostler, nginx and HAProxy. See README.md.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import reading
import rows
from proxies import OK, Failure, Proxy, find

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["hostler", "nginx", "haproxy"]

HOSTILE = ["refused", "mended", "forged", "ambiguous"]
LEGAL = ["served", "otherwise", "refused", "forged", "ambiguous"]
GOOD = ["whole", "otherwise", "failed"]
BROKEN = ["failed", "cut", "mended", "passed for whole"]


def main():
    options = arguments()
    try:
        binaries = prepare(options)
        with tempfile.TemporaryDirectory(prefix="hostler-bench-") as name:
            folder = Path(name)
            folder.chmod(0o755)  # nginx's workers are another user when the bench runs as root
            with ThreadPoolExecutor() as threads:
                results = list(threads.map(lambda peer: measure(peer, folder, binaries[peer]), options.peers))
        report(options.peers, results)
        return 0
    except Failure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


def arguments():
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__.strip())
    parser.add_argument("--peers", default=",".join(NAMES), metavar="NAMES", help="which of hostler,nginx,haproxy (default: all)")
    parser.add_argument("--hostler", type=Path, metavar="BINARY", help="this binary instead of one that is built")
    options = parser.parse_args()
    options.peers = options.peers.split(",")
    return options


def prepare(options):
    """The binary of each."""
    binaries = {name: find(name) for name in options.peers if name != "hostler"}
    missing = [name for name, binary in binaries.items() if not binary]
    if missing:
        raise Failure(f"Missing: {' '.join(missing)} (Debian: sudo apt-get install {' '.join(missing)}), or leave it out with --peers")
    if "hostler" in options.peers and not options.hostler:
        print("Building (release; the first time takes minutes)", flush=True)
        if subprocess.run(["cargo", "build", "--release", "--locked", "--bin", "hostler"], cwd=ROOT).returncode != 0:
            raise Failure("The build failed.")
        options.hostler = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "hostler"
    return binaries | {"hostler": options.hostler and options.hostler.resolve()}


def measure(name, folder, binary):
    """What becomes of each row: {kind: {row: (verdict, details)}}."""
    with Proxy(name, folder, binary) as proxy:
        requests = {row.name: (row, *of_request(proxy, row)) for row in rows.requests()}
        proxy.worker.take()
        responses = {row.name: (row, *of_response(proxy, row)) for row in rows.responses()}
    return {
        "hostile": {name: result[1:] for name, result in requests.items() if result[0].refused},
        "legal": {name: result[1:] for name, result in requests.items() if not result[0].refused},
        "good": {name: result[1:] for name, result in responses.items() if result[0].outcome == "whole"},
        "broken": {name: result[1:] for name, result in responses.items() if result[0].outcome != "whole"},
    }


def of_request(proxy, row):
    proxy.worker.answer, proxy.worker.then = OK, "close"
    received, ended = proxy.ask(row.bytes, len(row.forwarded) + bool(row.refused))
    got = reading.answers(received, "GET", ended)
    connections = proxy.worker.take()
    return judge(row, connections, [status for status, _, _ in got])


def judge(row, connections, statuses):
    """The verdict on a request, and what there is to say of it."""
    said = ", ".join(map(str, statuses)) or "nothing"
    found, whole = set(), []
    for data in connections:
        try:
            found |= set(reading.faults(data))
            whole.append(data)
        except reading.Incomplete:
            said += "; begun at the worker and broken off"
    if found:
        return "forged" if found == {"forged"} else "ambiguous", ", ".join(sorted(found))
    if row.refused:
        if len(whole) > len(row.forwarded):
            return "mended", whole[-1].partition(b"\r\n")[0].decode("latin-1")
        return "refused", said
    if len(whole) < len(row.forwarded):
        return "refused", said
    wanted = [reading.sent_on(before + after) for before, after in row.forwarded]
    if [reading.sent_on(data) for data in whole] != wanted:
        return "otherwise", " / ".join(data.partition(b"\r\n")[0].decode("latin-1") for data in whole)
    return "served", said


def of_response(proxy, row):
    proxy.worker.answer, proxy.worker.then = row.bytes, row.then
    head = f"{row.method} / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n"
    length = "Content-Length: 0\r\n" if row.method == "POST" else ""
    received, ended = proxy.ask(f"{head}{length}\r\n".encode())
    proxy.worker.take()
    return judge_answer(row, reading.answers(received, row.method, ended), ended)


def judge_answer(row, got, ended):
    """The verdict on an answer, and what there is to say of it."""
    if not got:
        return ("failed" if row.outcome == "whole" else "cut"), f"no answer, {ended}"
    status, body, is_whole = got[0]
    said = f"{status} {body[:30]!r}"
    if len(got) > 1:
        return ("otherwise" if row.outcome == "whole" else "passed for whole"), f"{len(got)} answers to one request"
    if status in (502, 504):
        return "failed", said
    if row.outcome == "whole":
        return ("whole", said) if (status, body, is_whole) == (row.status, row.body, True) else ("otherwise", said)
    if not is_whole:
        return "cut", said
    # What is left of a broken head without its broken part is one reading; what is left of a body is not the body.
    return ("mended" if row.outcome == "failed" and body == b"hello" else "passed for whole"), said


def report(peers, results):
    titles = [
        ("hostile", HOSTILE, "Requests that Hostler refuses"),
        ("legal", LEGAL, "Requests that Hostler sends on"),
        ("broken", BROKEN, "Answers that are broken"),
        ("good", GOOD, "Answers that are legal"),
    ]
    for kind, verdicts, title in titles:
        counts = [Counter(verdict for verdict, _ in result[kind].values()) for result in results]
        print(f"\n{title}: {len(results[0][kind])}\n")
        print(f"| | {' | '.join(peers)} |\n|---|{'---|' * len(peers)}")
        for verdict in verdicts:
            print(f"| {verdict} | {' | '.join(str(count[verdict]) for count in counts)} |")
    for kind, verdicts, title in titles:
        print(f"\n{title}: where it is not \"{verdicts[0]}\"")
        for peer, result in zip(peers, results):
            for name, (verdict, details) in result[kind].items():
                if verdict != verdicts[0] and not (kind == "broken" and verdict == "cut"):
                    print(f"  {peer:8} {name:34} {verdict:16} {details}")


if __name__ == "__main__":
    sys.exit(main())
