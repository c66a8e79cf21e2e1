"""Puts the rounds into words: medians, spreads, and ratios within the same round."""

from outcomes import median

# What is set against nginx, by the kind of scenario.
MEASURES = {
    "load": {"CPU per request": "cpu_us", "p50": "p50_ms", "p99": "p99_ms", "memory": "memory"},
    "threads": {"CPU per request, 1 thread": "cpu_us_1", "2 threads": "cpu_us_2"},
    "idle": {"plain": "plain", "TLS": "tls"},
}


def in_short(outcome):
    """The line for one round."""
    if not outcome["valid"]:
        return f"NOT VALID: {outcome['why']}"
    if "plain" in outcome:
        return f"plain {outcome['plain'] / 1024:.2f} KiB, TLS {outcome['tls'] / 1024:.2f} KiB"
    if "growth" in outcome:
        words = f"1 thread {outcome['cpu_us_1']:.2f} us/req, 2 threads {outcome['cpu_us_2']:.2f}, growth {outcome['growth']:.2f}"
    else:
        words = f"{outcome['cpu_us']:.2f} us/req, {outcome['rate']:.0f} req/s, proxy {outcome['proxy_busy']:.0%} busy"
    if outcome["others_busy"] > 0.15:
        words += f"  (other programs took {outcome['others_busy']:.2f} cores: noisy)"
    return words


def table(scenario, rounds):
    """The lines for one scenario; `rounds` are its valid rounds."""
    yield f"{scenario.key}  {scenario.title}"
    for peer in dict.fromkeys(each["peer"] for each in rounds):
        own = [each for each in rounds if each["peer"] == peer]
        yield f"   {peer:<8} {FIGURES[scenario.kind](scenario, own)}   n={len(own)}"
        if peer != "nginx":
            yield from ratio_lines(scenario, rounds, peer)


def load_figures(scenario, rounds):
    cpu = spread([each["cpu_us"] for each in rounds])
    rate = middle(rounds, "rate")
    p50, p99, memory = (middle(rounds, name) for name in ("p50_ms", "p99_ms", "memory"))
    words = f"CPU {cpu} us/req   {rate:>7.0f} req/s   p50 {ms(p50)}   p99 {ms(p99)}"
    words += f"   memory {memory / (1 << 20):.1f} MiB   busy {middle(rounds, 'proxy_busy'):.0%}"
    if scenario.moved >= 1 << 20:
        words += f"   {rate * scenario.moved / (1 << 20):.0f} MiB/s"
    if scenario.encoding:
        words += f"   answer {middle(rounds, 'size') / 1024:.1f} KiB"
    if scenario.opens in ("full", "resumed"):
        words += f"   {handshakes(rounds)}"
    agreed = rounds[0]["tls_agreed"]
    return f"{words}   {agreed}" if agreed else words


def handshakes(rounds):
    full, resumed = (sum(each[name] for each in rounds) for name in ("full", "resumed"))
    return f"{full} full and {resumed} resumed handshakes"


def thread_figures(_, rounds):
    one, two = (spread([each[f"cpu_us_{n}"] for each in rounds]) for n in (1, 2))
    growth = spread([each["growth"] for each in rounds])
    rates = " and ".join(f"{middle(rounds, f'rate_{n}'):.0f}" for n in (1, 2))
    return f"CPU {one} us/req on 1 thread, {two} on 2   growth {growth}   {rates} req/s"


def memory_figures(_, rounds):
    plain, tls = (spread([each[name] / 1024 for each in rounds]) for name in ("plain", "tls"))
    return f"plain {plain} KiB   TLS {tls} KiB"


FIGURES = {"load": load_figures, "threads": thread_figures, "idle": memory_figures}


def ratio_lines(scenario, rounds, peer):
    """The figures that matter, over nginx's in the same round. Below 1 is less than nginx takes."""
    found = {words: ratios(rounds, peer, measure) for words, measure in MEASURES[scenario.kind].items()}
    words = [f"{words} {spread(values)}" for words, values in found.items() if values]
    if words:
        yield f"            x nginx: {'   '.join(words)}"


def ratios(rounds, peer, measure):
    """This peer's figure over nginx's, round by round, for the rounds in which both are valid."""
    reference = {each["round"]: each[measure] for each in rounds if each["peer"] == "nginx"}
    own = {each["round"]: each[measure] for each in rounds if each["peer"] == peer}
    return [own[n] / reference[n] for n in own if reference.get(n) and own[n] is not None]


def middle(rounds, measure):
    return median([each[measure] for each in rounds])


def spread(values):
    low, middle, high = (f"{value:.2f}" for value in (min(values), median(values), max(values)))
    return f"{middle} ({low}-{high})"


def ms(value):
    return f"{value:.2f} ms" if value is not None else "-"
