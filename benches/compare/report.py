"""Puts the rounds into words: medians, spreads, and ratios within the same round."""

from load import median


def table(scenario, rounds):
    """The lines for one scenario; `rounds` are its valid rounds."""
    yield f"{scenario.key}  {scenario.title}"
    for peer in dict.fromkeys(each["peer"] for each in rounds):
        own = [each for each in rounds if each["peer"] == peer]
        figures = load_figures(own) if scenario.tool else memory_figures(own)
        yield f"   {peer:<8} {figures}   n={len(own)}"
        if peer != "nginx":
            yield from ratio_lines(scenario, rounds, peer)


def load_figures(rounds):
    cpu = spread([each["cpu_us"] for each in rounds])
    rate = median([each["rate"] for each in rounds])
    busy = median([each["proxy_busy"] for each in rounds])
    p50, p99 = (median([each[name] for each in rounds]) for name in ("p50_ms", "p99_ms"))
    agreed = rounds[0]["tls_agreed"]
    figures = f"CPU {cpu} us/req   {rate:>7.0f} req/s   p50 {ms(p50)}   p99 {ms(p99)}   busy {busy:.0%}"
    return f"{figures}   {agreed}" if agreed else figures


def memory_figures(rounds):
    plain, tls = (spread([each[name] / 1024 for each in rounds]) for name in ("plain", "tls"))
    return f"plain {plain} KiB   TLS {tls} KiB"


def ratio_lines(scenario, rounds, peer):
    """The figures that matter, over nginx's in the same round. Below 1 is less than nginx takes."""
    measures = {"CPU per request": "cpu_us"} if scenario.tool else {"plain": "plain", "TLS": "tls"}
    for words, measure in measures.items():
        values = ratios(rounds, peer, measure)
        if values:
            yield f"            {words}: {spread(values)} x nginx"


def ratios(rounds, peer, measure):
    """This peer's figure over nginx's, round by round, for the rounds in which both are valid."""
    reference = {each["round"]: each[measure] for each in rounds if each["peer"] == "nginx"}
    own = {each["round"]: each[measure] for each in rounds if each["peer"] == peer}
    return [own[n] / reference[n] for n in own if reference.get(n)]


def spread(values):
    low, middle, high = (f"{value:.2f}" for value in (min(values), median(values), max(values)))
    return f"{middle} ({low}-{high})"


def ms(value):
    return f"{value:.2f} ms" if value is not None else "-"
