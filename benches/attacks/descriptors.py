"""Far more clients than the gateway may open descriptors for: does it go on serving, can its operator look, does it recover?"""

import asyncio
import multiprocessing
import signal
import time
from collections import Counter

import h1_attacks
from gateway import Gateway, grown
from honest import FAST, Figures, Honest, OverH1, one
from measure import WITHIN, in_words
from storm import Attack, Attackers

LIMIT = 256
CROWD = [
    Attack("slow", "a header field every second", h1_attacks.dribble(h1_attacks.UP[:20], b"X-a: b\r\n"), 450, 300, "h1"),
    Attack("idle", "nothing after a request", h1_attacks.one_and_idle, 450, 300, "h1"),
]
HONEST = 100
# Of a core: an accept that fails again and again would take all of one.
MOST_CPU = 0.5


async def honest_crowd(port, seconds):
    """100 clients with a new connection every second each."""
    begin, answers = time.monotonic(), []

    async def client(number):
        over = OverH1("h1 new", port, fresh=True, source=f"127.0.8.{1 + number}")
        for turn in range(int(seconds)):
            due = begin + number / HONEST + turn
            await asyncio.sleep(max(0, due - time.monotonic()))
            await one(over, FAST, due, answers)

    await asyncio.gather(*map(client, range(HONEST)))
    return [(answer, answer.due + answer.seconds - begin) for answer in answers]


def crowd(pipe, *arguments):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe.send(asyncio.run(honest_crowd(*arguments)))


def look_at_admin(gateway, seconds):
    """/metrics every quarter of a second: how often it answered within two seconds, and how long it took at most."""
    until, good, all_looks, longest = time.monotonic() + seconds, 0, 0, 0
    while (begin := time.monotonic()) < until:
        all_looks += 1
        try:
            gateway.series(timeout=2)
            good += 1
        except OSError:
            gateway.process.check_alive()
        longest = max(longest, time.monotonic() - begin)
        time.sleep(0.25)
    return good, all_looks, longest


def run(options, app, certificate):
    """1,000 clients, most of them slow or idle, at a gateway with few descriptors."""
    limit, seconds = options.descriptors or LIMIT, options.seconds
    with Gateway(options.hostler, app, certificate, options.limits, "", limit) as gateway:
        Honest(gateway, options.rate, 2).answers()
        gateway.settle()
        descriptors, counters = gateway.descriptors(), gateway.counters()
        cpu, begin = gateway.cpu(), time.monotonic()
        attackers = [Attackers(attack, gateway, seconds) for attack in CROWD]
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=crowd, args=(theirs, gateway.plain, seconds), daemon=True)
        process.start()
        good, looks, longest = look_at_admin(gateway, seconds)
        answers = ours.recv()
        process.join()
        cpu = (gateway.cpu() - cpu) / (time.monotonic() - begin)
        tallies = [each.tally() for each in attackers]
        lines = gateway.log_lines()
        left = gateway.settle(WITHIN, descriptors)
        after = Figures.of(Honest(gateway, options.rate, 3).answers())
        left = left and gateway.settle(WITHIN, descriptors)
        counted = grown(counters, gateway.counters())
    return report(limit, seconds, locals())


def report(limit, seconds, seen):
    kinds = Counter(answer.kind for answer, _ in seen["answers"])
    by_second = Counter(int(at) for answer, at in seen["answers"] if answer.kind == "ok")
    fewest = min(by_second[second] for second in range(1, seconds))
    times = Figures.of([answer for answer, _ in seen["answers"]])
    print(f"ulimit -n {limit}; {sum(attack.connections for attack in CROWD)} slow and idle clients, {HONEST} honest ones, {seconds} s\n")
    print(f"honest: {in_words(kinds, 8)}; at least {fewest} answers in each second; p50 {times.p50:.0f} ms, p99 {times.p99:.0f} ms")
    for attack, tally in zip(CROWD, seen["tallies"]):
        print(f"{attack.name}: {tally.made:,} connections, refused: {in_words(tally.refused)}, ended: {in_words(tally.ended, 6)}")
    print(f"/metrics: {seen['good']} of {seen['looks']} looks answered, the slowest in {seen['longest'] * 1000:.0f} ms")
    print(f"gateway: {seen['cpu']:.2f} cores, {len(seen['lines'])} lines in the log, counted: {in_words(seen['counted'], 8)}")
    for line in seen["lines"][:3]:
        print(f"    {line[:160]}")
    after = seen["after"]
    print(f"afterwards: honest {after.answered} of {after.asked}; left behind: {seen['left'] or 'nothing'}")
    verdicts = {
        "serves in every second": fewest > 0,
        "admin reachable": seen["good"] == seen["looks"],
        "nothing spins": seen["cpu"] < MOST_CPU,
        "log once a second": len(seen["lines"]) <= seconds + 5,
        "recovers": after.answered == after.asked > 0,
        "nothing left": not seen["left"],
    }
    print()
    for name, holds in verdicts.items():
        print(f"  {name}: {'ok' if holds else 'NOT ok'}")
    result = {"verdicts": verdicts, "honest": dict(kinds), "fewest": fewest, "cpu": seen["cpu"], "counted": seen["counted"]}
    return all(verdicts.values()), [result]
