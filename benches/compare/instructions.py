"""Instructions per request in user space, and the functions they are spent in: valgrind's callgrind."""

import re
import subprocess
from pathlib import Path

from machine import Failure, Process
from measurement import first_answer, from_cache
from peers import Proxy

TOP = 10


def count(bench, scenario, peer, requests):
    """
    Instructions per request by function. A run of N requests and one of 2 N are counted after an equal warm-up; the
    difference is that of N requests, without connects, handshakes and what the clock brings about.
    """
    dumps = bench.folder / f"{peer.name}.callgrind"
    for left in bench.folder.glob(f"{dumps.name}*"):
        left.unlink()
    valgrind = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={dumps}"]
    with Proxy(peer, bench, bench.pinned, valgrind, patience=60) as proxy:
        first_answer(bench, scenario, proxy)
        with from_cache(bench, scenario):
            load(bench, scenario, proxy, requests)
            control(proxy, "--zero")
            for times in (1, 2):
                load(bench, scenario, proxy, times * requests)
                control(proxy, f"--dump={times}")
    once, twice = (read_profile(Path(f"{dumps}.{number}").read_text()) for number in (1, 2))
    return difference(once, twice, requests)


def load(bench, scenario, proxy, requests):
    """h2load, which can be told how many requests to send, over HTTP/1.1 too."""
    protocol = ["--npn-list=h2"] if scenario.tool == "h2load" else ["--h1"]
    size = ["-t1", f"-c{scenario.connections}", f"-m{scenario.streams}", f"-n{requests}"]
    command = ["h2load", *size, *protocol, proxy.url(scenario)]
    with Process("h2load", command, bench.pinned.load, bench.folder / "load.log", subprocess.PIPE) as process:
        try:
            output, _ = process.child.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            raise Failure("h2load did not end within 300 s") from None
    if f" {requests} succeeded, 0 failed" not in output.decode():
        raise Failure(f"h2load, {requests} requests:\n{output.decode()}")


def control(proxy, what):
    command = ["callgrind_control", what, str(proxy.process.child.pid)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if result.returncode != 0 or "OK" not in result.stdout:
        raise Failure(f"{' '.join(command)}:\n{result.stdout}{result.stderr}")


def read_profile(text):
    """
    Instructions by function, calls to others not included. callgrind_annotate would take a whole thread for one function
    when a dump falls into its running.
    """
    names, found, function, is_call = {}, {}, None, False
    for line in text.splitlines():
        if named := re.match(r"(c?)fn=\((\d+)\)(?: (.+))?$", line):
            is_callee, number, name = named.groups()
            if name:
                names[number] = name_of(name)
            function = function if is_callee else names[number]
        elif line.startswith("calls="):
            is_call = True
        elif cost := re.match(r"(?:[+-]?\d+|\*) (\d+)$", line):
            if not is_call:
                found[function] = found.get(function, 0) + int(cost[1])
            is_call = False
    if not found:
        raise Failure(f"callgrind wrote no costs:\n{text[:500]}")
    return found


def name_of(words):
    """Without the number of a recursion and the compiler's hash."""
    return re.sub(r"::h[0-9a-f]{16}\b", "", words.partition("'")[0])


def difference(once, twice, requests):
    return {name: (twice[name] - once.get(name, 0)) / requests for name in twice}


def in_words(functions):
    """The sum, and a line for each of the functions that take most."""
    total = sum(functions.values())
    yield f"{total:,.0f} instructions per request"
    for name, value in sorted(functions.items(), key=lambda item: -item[1])[:TOP]:
        yield f"   {value:>8,.0f}  {value / total:>4.0%}  {name}"
