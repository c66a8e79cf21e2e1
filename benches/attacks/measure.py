"""One attack: the honest client alone, the honest client beside it, and what is left behind."""

import os
import time
from dataclasses import dataclass, field

from gateway import Gateway, grown
from honest import Figures, Honest
from machine import Failure, busy_seconds, cpu_seconds, tree
from storm import Attackers

MEBIBYTE = 1 << 20
# What an attack may do to an honest client, and to the machine.
MOST_SLOWER = 3.0
MOST_GROWN = 64 * MEBIBYTE
# An allocator keeps some pages for the next time.
MOST_KEPT = 16 * MEBIBYTE
# Cores; beyond it the p99 is not that of the gateway.
MOST_OTHER_WORK = 0.2
# How long what an attack leaves behind may take to go.
WITHIN = 15


@dataclass
class Result:
    """What was measured; memory in bytes."""

    name: str
    limits: str
    quiet: Figures
    beside: Figures
    tally: object
    rss: tuple  # before, the most, after
    reached: tuple  # the worker: honest, attack
    left: str
    cpu: float  # of the gateway, in cores
    log_lines: int
    seconds: float
    others: tuple  # cores that other work on the machine took: quiet, and beside
    counted: dict = field(default_factory=dict)
    kinds: dict = field(default_factory=dict)  # of connections of the honest client: figures quiet, and beside

    def slower(self):
        return self.beside.p99 / self.quiet.p99

    def verdicts(self):
        """Criterion to whether it holds."""
        before, peak, after = self.rss
        return {
            "answers": self.beside.answered == self.beside.asked > 0,
            "p99": self.slower() <= MOST_SLOWER,
            "memory": peak - before < MOST_GROWN,
            "back": after - before < MOST_KEPT,
            "left": not self.left,
            # Not one line for each attacker.
            "log": self.log_lines <= 2 * self.seconds + 10,
        }

    def as_json(self):
        return {**vars(self), "verdicts": self.verdicts(), "slower": round(self.slower(), 2)}


def chosen(items, only):
    """Those with one of the names; a name that nothing has stands for all that begin with it."""
    if not only:
        return items
    found = []
    for name in only.split(","):
        some = [item for item in items if item.name == name] or [item for item in items if item.name.startswith(name)]
        if not some:
            raise Failure(f"Nothing is called {name}. There are: {', '.join(item.name for item in items)}")
        found += some
    return found


def measure(attack, app, certificate, options):
    """A gateway of its own, so that no attack is blamed for another."""
    with Gateway(options.hostler, app, certificate, options.limits, attack.spool, options.descriptors) as gateway:
        # Whatever is made at the first request is no growth.
        Honest(gateway, options.rate, 1).answers()
        gateway.settle()
        descriptors = gateway.descriptors()
        others = OtherWork()
        alone = Honest(gateway, options.rate, options.quiet).answers()
        others_quiet = others.cores()
        gateway.settle(descriptors=descriptors)
        counters, counts, cpu, before = gateway.counters(), app.counts(), gateway.cpu(), gateway.rss()
        gateway.forget_peak()
        begin, others = time.monotonic(), OtherWork()
        attackers = Attackers(attack, gateway, options.seconds)
        answers = Honest(gateway, options.rate, options.seconds).answers()
        cpu = (gateway.cpu() - cpu) / (time.monotonic() - begin)
        tally, others_beside = attackers.tally(), others.cores()
        peak = gateway.peak_rss()
        left = gateway.settle(WITHIN, descriptors)
        # Memory goes back while there is something to do.
        Honest(gateway, options.rate, 2).answers()
        left = left and gateway.settle(WITHIN, descriptors)
        reached = tuple(now - then for now, then in zip(app.counts(), counts))
        return Result(
            attack.name,
            options.limits,
            Figures.of(alone),
            Figures.of(answers),
            tally,
            (before, peak, back_to(gateway, before)),
            reached,
            left,
            cpu,
            len(gateway.log_lines()),
            options.seconds,
            (others_quiet, others_beside),
            grown(counters, gateway.counters()),
            by_kind(alone, answers),
        )


class OtherWork:
    """What the machine does besides: it makes the honest client late whatever the gateway does."""

    def __init__(self):
        self.begin, self.busy, self.ours = time.monotonic(), busy_seconds(), self.own()

    @staticmethod
    def own():
        ended = os.times()
        return cpu_seconds(tree(os.getpid())) + ended.children_user + ended.children_system

    def cores(self):
        return (busy_seconds() - self.busy - (self.own() - self.ours)) / (time.monotonic() - self.begin)


def by_kind(*runs):
    kinds = sorted({answer.over for answers in runs for answer in answers})
    return {kind: [Figures.of([answer for answer in answers if answer.over == kind]) for answers in runs] for kind in kinds}


def back_to(gateway, before):
    """Resident bytes once they are back, or when they had time enough."""
    until = time.monotonic() + WITHIN
    while gateway.rss() - before >= MOST_KEPT and time.monotonic() < until:
        time.sleep(0.2)
    return gateway.rss()


def in_words(counter, most=4):
    """The most frequent first."""
    items = sorted(counter.items(), key=lambda item: -item[1])
    words = [f"{count:,} × {what}" for what, count in items[:most]]
    return ", ".join(words) + (", …" if len(items) > most else "") if words else "-"


def ms(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def row(result):
    """One line of the table."""
    before, peak, after = (size / MEBIBYTE for size in result.rss)
    quiet, beside = result.quiet, result.beside
    failed = [name for name, holds in result.verdicts().items() if not holds]
    return [
        result.name,
        f"{beside.answered}/{beside.asked}",
        "/".join(map(ms, (quiet.p50, quiet.p99, quiet.longest))),
        "/".join(map(ms, (beside.p50, beside.p99, beside.longest))),
        f"{result.slower():.1f}",
        f"{before:.0f}/{peak:.0f}/{after:.0f}",
        f"{result.reached[0]}+{result.reached[1]}",
        f"{result.cpu:.2f}",
        "ok" if not failed else "NOT ok: " + ", ".join(failed),
    ]


HEADING = [
    ("attack", 24),
    ("honest", 10),
    ("quiet p50/p99/max ms", 20),
    ("beside", 20),
    ("× p99", 5),
    ("RSS MiB", 14),
    ("to worker", 14),
    ("cores", 5),
    ("verdict", 0),
]


def details(attack, result):
    """What became of everybody, below the line."""
    tally = result.tally
    lines = [
        f"{attack.about}; {tally.made:,} connections, {tally.most_open:,} at once, {tally.sent / MEBIBYTE:,.1f} MiB sent; "
        f"refused: {in_words(tally.refused)}; ended: {in_words(tally.ended)}"
    ]
    if tally.answers:
        lines.append(f"attackers were told: {in_words(tally.answers, 6)}")
    counted = {
        name.removeprefix("hostler_"): value
        for name, value in result.counted.items()
        if "requests_total" not in name and "handshakes" not in name
    }
    if counted:
        lines.append(f"counted: {in_words(counted, 6)}")
    if not result.verdicts()["p99"]:
        each = (f"{kind} {ms(quiet.p99)} → {ms(beside.p99)}" for kind, (quiet, beside) in result.kinds.items())
        lines.append(f"p99 by connection: {', '.join(each)}")
    if result.beside.others:
        lines.append(f"honest clients got: {in_words(result.beside.others, 6)}")
    if result.quiet.answered != result.quiet.asked:
        lines.append(f"even without an attack: {in_words(result.quiet.others, 6)}")
    if result.left:
        lines.append(f"left behind: {result.left}")
    if max(result.others) > MOST_OTHER_WORK:
        quiet, beside = result.others
        lines.append(f"not to be trusted: other work on the machine took {quiet:.1f} cores, then {beside:.1f}")
    if result.log_lines > 2:
        lines.append(f"{result.log_lines} lines in the log")
    return lines
