"""One table in Markdown over all scenarios, to be pasted."""

from outcomes import median
from report import middle, ratios


def markdown(scenarios, peers, rounds):
    """A row for each scenario and kind of figure, a column for each peer. In brackets: over nginx, medians of the rounds."""
    yield "CPU time per request; in brackets the ratio to nginx, then that of p50 and of p99"
    yield ""
    yield f"| | {' | '.join(peers)} |"
    yield "|---" * (len(peers) + 1) + "|"
    for scenario in scenarios:
        own = [each for each in rounds if each["scenario"] == scenario.key]
        for name, cell in ROWS[scenario.kind]:
            cells = [cell(own, peer) for peer in peers]
            yield f"| {scenario.key}: {scenario.short}{name} | {' | '.join(cells)} |"


def load_cell(rounds, peer):
    words = cell(rounds, peer, "cpu_us", micros, ["cpu_us", "p50_ms", "p99_ms"])
    sizes = [each["size"] for each in rounds if each["peer"] == peer and each.get("size")]
    return f"{words}, {kibibytes(median(sizes))}" if sizes else words


def growth_cell(rounds, peer):
    return cell(rounds, peer, "growth", lambda value: f"{value:.2f} ×", [])


def one_thread_cell(rounds, peer):
    return cell(rounds, peer, "cpu_us_1", micros, ["cpu_us_1"])


def two_threads_cell(rounds, peer):
    return cell(rounds, peer, "cpu_us_2", micros, ["cpu_us_2"])


def plain_cell(rounds, peer):
    return cell(rounds, peer, "plain", kibibytes, ["plain"])


def tls_cell(rounds, peer):
    return cell(rounds, peer, "tls", kibibytes, ["tls"])


ROWS = {
    "load": [("", load_cell)],
    "threads": [(", CPU on 1", one_thread_cell), (", CPU on 2", two_threads_cell), (", growth", growth_cell)],
    "idle": [(", plain", plain_cell), (", TLS", tls_cell)],
}


def cell(rounds, peer, measure, unit, compared):
    own = [each for each in rounds if each["peer"] == peer]
    if not own:
        return "-"
    words = unit(middle(own, measure))
    against = [median(ratios(rounds, peer, name)) for name in compared] if peer != "nginx" else []
    said = [f"{value:.2f}" for value in against if value is not None]
    return f"{words} ({'; '.join(said)})" if said else words


def micros(value):
    return f"{value:.1f} µs" if value < 1000 else f"{value / 1000:.2f} ms"


def kibibytes(value):
    return f"{value / 1024:.1f} KiB"
