#!/usr/bin/env python3
"""
The waiting room under storms, with real gunicorn: what is lost, what runs twice, how many run at once. See README.md.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from clients import Client, percentile
from stage import PYTHON, ROOT, WORKERS, App, Failure, Proxy, find_nginx, most_at_once, times_run
from machine import allow_many_files, describe, wait_for


def main():
    options = arguments()
    try:
        prepare(options)
        allow_many_files()
        print(describe())
        with tempfile.TemporaryDirectory(prefix="hostler-bench-") as name:
            options.folder = Path(name)
            options.folder.chmod(0o755)  # nginx's workers are another user when the bench runs as root
            MEASUREMENTS[options.measurement](options)
        return 0
    except Failure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


def arguments():
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__.strip())
    parser.add_argument("measurement", choices=sorted(MEASUREMENTS))
    parser.add_argument("--seconds", type=int, metavar="S", help="length of each run (flood: 20, restarts and kills: 60)")
    parser.add_argument("--peers", default="hostler,nginx", metavar="NAMES", help="which of hostler,nginx (default: both)")
    parser.add_argument("--transports", default="unix,tcp", metavar="NAMES", help="which of unix,tcp (default: both)")
    parser.add_argument("--hostler", type=Path, metavar="BINARY", help="measure this binary instead of building it")
    return parser.parse_args()


def prepare(options):
    if not PYTHON.exists():
        raise Failure("There is no .venv with gunicorn and Django: run tests/python/venv.sh")
    options.peers = options.peers.split(",")
    options.transports = options.transports.split(",")
    if "nginx" in options.peers and not find_nginx():
        raise Failure("Missing: nginx (Debian: sudo apt-get install nginx-light), or say --peers hostler")
    if options.measurement == "full" and not shutil.which("h2load"):
        raise Failure("Missing: h2load (Debian: sudo apt-get install nghttp2-client)")
    if "hostler" in options.peers and not options.hostler:
        print("Building (release; the first time takes minutes)", flush=True)
        if subprocess.run(["cargo", "build", "--release", "--locked", "--bin", "hostler"], cwd=ROOT).returncode != 0:
            raise Failure("The build failed.")
        options.hostler = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "hostler"
    if options.hostler:
        options.hostler = options.hostler.resolve()


def table(*rows):
    """Rows of the same length, the first of them the heading."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip(), flush=True)


def in_words(outcomes):
    kinds = Counter(outcome.kind for outcome in outcomes if outcome.kind != "ok")
    return ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common()) or "none"


def calm(proxy):
    """What is left of a storm at Hostler: nothing, it is hoped."""
    if proxy.name != "hostler":
        return "-"
    series = ['hostler_in_flight{upstream="app"}', 'hostler_waiting{upstream="app"}']
    series += [f'hostler_spool_bytes{{where="{where}"}}' for where in ("memory", "disk")]
    try:
        wait_for(lambda: not any(map(proxy.gauge, series)), 10, "calm")
        return "0"
    except Failure:
        return ", ".join(f"{name} {proxy.gauge(name):.0f}" for name in series if proxy.gauge(name))


# flood: more clients than workers, for as long as it lasts


def flood(options):
    """200 clients, four workers, 100 ms of work."""
    seconds, rows = options.seconds or 20, []
    for transport in options.transports:
        for peer in options.peers:
            with App(options.folder, transport) as app, Proxy(peer, app, options.folder, options) as proxy:
                outcomes, backlog = asyncio.run(flood_with(proxy, app, seconds))
                runs = app.runs()
                # What the start and the end are like is left out: the rate is that of the time between.
                first = min(begin for _, _, begin, _ in runs) + 2_000_000_000
                inside = sum(first <= begin < first + (seconds - 4) * 1_000_000_000 for _, _, begin, _ in runs)
                rate, ideal = inside / (seconds - 4), WORKERS / 0.1
                rows.append(
                    [peer, transport, f"{rate:.2f}/s", f"{rate / ideal:.1%}", most_at_once(runs)]
                    + [f"{max(backlog)} ({sum(map(bool, backlog))} of {len(backlog)} looks)", in_words(outcomes), calm(proxy)]
                )
    heading = ["", "", "rate", "of 40/s", "most at once", "backlog: longest, not empty", "failures", "left behind"]
    table(heading, *rows)


async def flood_with(proxy, app, seconds):
    until = time.monotonic() + seconds
    outcomes, backlog = [], []

    async def client(number):
        client = Client(proxy.port)
        turn = 0
        while time.monotonic() < until:
            outcomes.append(await client.ask("GET", f"{number}-{turn}", 100))
            turn += 1
        client.leave()

    async def watch():
        # gunicorn's workers load the app first, and accept nothing meanwhile.
        await asyncio.sleep(2)
        while time.monotonic() < until:
            backlog.append(await asyncio.to_thread(app.backlog))
            await asyncio.sleep(0.05)

    await asyncio.gather(watch(), *(client(number) for number in range(200)))
    return outcomes, backlog


# restarts and kills: gunicorn goes away under load, and comes back


def restarts(options):
    """SIGTERM every three seconds and one second down, under 100 requests a second."""
    goings(options, restart)


def kills(options):
    """SIGKILL for a random worker every half second, under 100 requests a second."""
    goings(options, kill)


def goings(options, event):
    seconds, rows = options.seconds or 60, []
    variants = [(peer, transport, "") for transport in options.transports for peer in options.peers]
    if "hostler" in options.peers and "tcp" in options.transports:
        variants.append(("hostler", "tcp", ", retry: { expect: true }"))
    for peer, transport, keys in variants:
        name = f"{peer} (expect)" if keys else peer
        try:
            with App(options.folder, transport) as app, Proxy(peer, app, options.folder, options, keys=keys) as proxy:
                outcomes, events = asyncio.run(storm(proxy, app, seconds, event))
                rows.append([name, transport, events, *losses(outcomes, app.runs()), calm(proxy)])
        except Failure as failure:
            # A key that this version does not have, for one.
            rows.append([name, transport, str(failure).splitlines()[-1][:100], *[""] * 8])
    heading = ["", "", "events", "requests", "GET failed", "POST failed", "of them run", "not run", "POST twice"]
    table([*heading, "failures", "left behind"], *rows)


def losses(outcomes, runs):
    times = times_run(runs)
    failed = [outcome for outcome in outcomes if outcome.kind != "ok"]
    posts = [outcome for outcome in failed if outcome.method == "POST"]
    run = sum(times[outcome.name] > 0 for outcome in posts)
    twice = sum(times[outcome.name] > 1 for outcome in outcomes if outcome.method == "POST")
    return [len(outcomes), len(failed) - len(posts), len(posts), run, len(posts) - run, twice, in_words(outcomes)]


async def storm(proxy, app, seconds, event):
    """20 clients with a request every 200 ms: GETs, and POSTs with nothing, 100 bytes and 300 KiB."""
    until = time.monotonic() + seconds
    outcomes, events = [], 0

    async def client(number):
        client = Client(proxy.port)
        due, turn = time.monotonic() + number / 100, 0
        while due < until:
            await asyncio.sleep(max(0, due - time.monotonic()))
            name, body = f"{number}-{turn}", [None, 0, 100, 300 << 10][(number + turn) % 4]
            method = "GET" if body is None else "POST"
            outcomes.append(await client.ask(method, name, 20, body or 0))
            due, turn = max(due + 0.2, time.monotonic()), turn + 1
        client.leave()

    clients = asyncio.gather(*(client(number) for number in range(20)))
    while time.monotonic() < until - 3:
        await event(app)
        events += 1
    await clients
    return outcomes, events


async def restart(app):
    await asyncio.sleep(3)
    await asyncio.to_thread(app.stop)
    await asyncio.sleep(1)
    app.start()


async def kill(app):
    await asyncio.sleep(0.5)
    app.kill_a_worker()


# aborts: clients that leave


def aborts(options):
    """100 clients ask for 5 s of work and leave after one; then 20 honest ones ask for 100 ms."""
    rows = []
    for peer in options.peers:
        # Twice the workers: only the proxy keeps the app at four.
        with App(options.folder, "unix", 2 * WORKERS) as app, Proxy(peer, app, options.folder, options) as proxy:
            honest = asyncio.run(leave_and_come(proxy))
            left = calm(proxy)
            app.stop()
            runs = app.runs()
            gone = sum(name.startswith("gone") for _, name, _, _ in runs)
            served = [outcome.seconds for outcome in honest if outcome.kind == "ok"]
            slowest = f"{max(served):.1f} s" if served else "-"
            rows.append([peer, most_at_once(runs), gone, f"{len(served)} of {len(honest)}", slowest, in_words(honest), left])
    table(["", "most at once", "run for nobody", "honest served", "slowest", "failures", "left behind"], *rows)


async def leave_and_come(proxy):
    clients = [Client(proxy.port) for _ in range(100)]
    asks = [asyncio.ensure_future(client.ask("GET", f"gone-{number}", 5000)) for number, client in enumerate(clients)]
    await asyncio.sleep(1)
    for ask, client in zip(asks, clients):
        client.leave()
        ask.cancel()
    await asyncio.gather(*asks, return_exceptions=True)
    return await asyncio.gather(*(Client(proxy.port).ask("GET", f"honest-{number}", 100) for number in range(20)))


# memory: very many wait


def memory(options):
    """10,000 requests with 1 KiB of body wait: what Hostler's memory grows by."""
    count = 10_000
    with App(options.folder, "unix") as app, Proxy("hostler", app, options.folder, options, limit=2 * count) as proxy:
        before = rss(proxy)
        during, waiting = asyncio.run(fill(proxy, count))
        wait_for(lambda: proxy.gauge('hostler_waiting{upstream="app"}') == 0, 30, "those who left are dropped")
        after = rss(proxy)
    heading = ["waiting", "RSS before", "during", "grown by", "each", "after they left"]
    each = f"{(during - before) / waiting:.2f} KiB"
    table(heading, [waiting, *(f"{kib / 1024:.1f} MiB" for kib in (before, during, during - before)), each, f"{after / 1024:.1f} MiB"])


def rss(proxy):
    status = Path(f"/proc/{proxy.process.child.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


async def fill(proxy, count):
    clients = [Client(proxy.port, source=f"127.0.1.{1 + number % 50}") for number in range(count)]
    head = b"POST /work?ms=60000 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1024\r\n\r\n"
    for first in range(0, count, 500):
        await asyncio.gather(*(client.send(head + b"x" * 1024) for client in clients[first : first + 500]))
    waiting = count - WORKERS
    is_full = lambda: proxy.gauge('hostler_waiting{upstream="app"}') >= waiting  # noqa: E731
    await asyncio.to_thread(wait_for, is_full, 60, f"{waiting} requests wait")
    during = rss(proxy)
    for client in clients:
        client.leave()
    return during, waiting


# full: nobody gets in


def full(options):
    """How long it takes to be told that the waiting room is full."""
    with App(options.folder, "unix") as app, Proxy("hostler", app, options.folder, options, limit=100) as proxy:
        rows = asyncio.run(knock(proxy, options.folder))
    table(["", "refused", "p50", "p99", "longest", "other outcomes"], *rows)


async def knock(proxy, folder):
    inside = [Client(proxy.port) for _ in range(100 + WORKERS)]
    asks = [asyncio.ensure_future(client.ask("GET", "inside", 60000)) for client in inside]
    await asyncio.to_thread(wait_for, lambda: proxy.gauge('hostler_waiting{upstream="app"}') >= 100, 20, "a full room")
    body = folder / "body"
    body.write_bytes(b"x" * (100 << 10))
    rows = []
    for words, at_once, more in [
        ("GET, one after the other", 1, []),
        ("GET, 20 at once", 20, []),
        ("POST of 100 KiB, 20 at once", 20, ["-d", body]),
    ]:
        times, others = await asyncio.to_thread(refusals, proxy, folder, at_once, more)
        rows.append([words, len(times), *figures(times), f"{others} were not refused" if others else "none"])
    rows.append(await announce(proxy))
    for ask, client in zip(asks, inside):
        client.leave()
        ask.cancel()
    await asyncio.gather(*asks, return_exceptions=True)
    return rows


def refusals(proxy, folder, at_once, more):
    """Milliseconds that each 503 of 4,000 requests took, as h2load sees them, and how many were something else."""
    log = folder / "answers.log"
    log.unlink(missing_ok=True)
    url = f"http://127.0.0.1:{proxy.port}/work?ms=0"
    command = ["h2load", "--h1", "-n4000", f"-c{at_once}", f"--log-file={log}", *more, url]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if result.returncode != 0:
        raise Failure(f"h2load failed:\n{result.stderr}")
    answers = [line.split()[1:3] for line in log.read_text().splitlines()]
    times = [int(micros) / 1000 for status, micros in answers if status == "503"]
    return times, 4000 - len(times)


def figures(times):
    if not times:
        return ["-"] * 3
    return [f"{figure:.2f} ms" for figure in (percentile(times, 50), percentile(times, 99), max(times))]


async def announce(proxy):
    """A POST whose body is announced and kept back: is it told before the body has to be sent?"""
    words, times = "POST of 1 MiB, only announced", []
    head = b"POST /work?ms=0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n"
    for _ in range(100):
        client, begun = Client(proxy.port), time.monotonic()
        try:
            await client.send(head)
            await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 3)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            return [words, len(times), "-", "-", "-", "no answer before the body"]
        finally:
            client.leave()
        times.append((time.monotonic() - begun) * 1000)
    return [words, len(times), *figures(times), "none"]


MEASUREMENTS = {
    "flood": flood,
    "restarts": restarts,
    "kills": kills,
    "aborts": aborts,
    "memory": memory,
    "full": full,
}


if __name__ == "__main__":
    sys.exit(main())
