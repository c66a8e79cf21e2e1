import unittest

from report import in_short, ratios, table
from scenarios import SCENARIOS
from summary import markdown

BY_KEY = {each.key: each for each in SCENARIOS}


def load(scenario, number, peer, cpu, p50=1.0, p99=2.0):
    figures = {"cpu_us": cpu, "rate": 1000, "p50_ms": p50, "p99_ms": p99, "proxy_busy": 0.5, "others_busy": 0.0}
    more = {"memory": 1 << 20, "full": 0, "resumed": 7, "tls_agreed": None, "valid": True}
    return {"scenario": scenario, "round": number, "peer": peer} | figures | more


def idle(number, peer, plain, tls):
    return {"round": number, "peer": peer, "plain": plain * 1024, "tls": tls * 1024}


class Ratios(unittest.TestCase):
    ROUNDS = [idle(1, "nginx", 1, 10), idle(1, "hostler", 2, 5), idle(2, "hostler", 3, 6), idle(3, "nginx", 9, 9)]

    def test_a_ratio_needs_both_peers_in_the_same_round(self):
        self.assertEqual(ratios(self.ROUNDS, "hostler", "tls"), [0.5])

    def test_table_names_every_peer_and_the_ratio_of_all_but_nginx(self):
        lines = list(table(BY_KEY["k"], self.ROUNDS))
        self.assertEqual(
            [line.split() for line in lines[1:]],
            [
                "nginx plain 5.00 (1.00-9.00) KiB TLS 9.50 (9.00-10.00) KiB n=2".split(),
                "hostler plain 2.50 (2.00-3.00) KiB TLS 5.50 (5.00-6.00) KiB n=2".split(),
                "x nginx: plain 2.00 (2.00-2.00) TLS 0.50 (0.50-0.50)".split(),
            ],
        )

    def test_table_without_valid_rounds_is_its_title(self):
        self.assertEqual(len(list(table(BY_KEY["a"], []))), 1)


class Load(unittest.TestCase):
    ROUNDS = [load("f", 1, "nginx", 10), load("f", 1, "hostler", 5, p50=0.5), load("f", 2, "hostler", 99)]

    def test_handshakes_are_counted_over_all_rounds(self):
        lines = list(table(BY_KEY["f"], self.ROUNDS))
        self.assertIn("0 full and 14 resumed handshakes", lines[2])

    def test_bodies_of_mebibytes_have_a_speed(self):
        self.assertIn("10000 MiB/s", list(table(BY_KEY["i"], self.ROUNDS))[1])

    def test_a_peer_without_latencies_has_no_ratio_of_them(self):
        rounds = [load("a", 1, "nginx", 10, None, None), load("a", 1, "haproxy", 20, None, None)]
        self.assertEqual(list(table(BY_KEY["a"], rounds))[3].split()[:6], "x nginx: CPU per request 2.00".split())

    def test_compressed_answers_have_a_size(self):
        rounds = [load("s", 1, "nginx", 10) | {"size": 20 * 1024}]
        self.assertIn("answer 20.0 KiB", list(table(BY_KEY["s"], rounds))[1])
        self.assertIn("| 10.0 µs, 20.0 KiB |", list(markdown([BY_KEY["s"]], ["nginx"], rounds))[-1])

    def test_a_noisy_round_says_so(self):
        self.assertIn("0.40 cores", in_short(load("a", 1, "nginx", 10) | {"others_busy": 0.4}))

    def test_a_round_that_is_not_valid_says_why(self):
        self.assertEqual(in_short({"valid": False, "why": "no"}), "NOT VALID: no")


class Summary(unittest.TestCase):
    def lines(self, keys, peers, rounds):
        return list(markdown([BY_KEY[key] for key in keys], peers, rounds))[4:]

    def test_a_cell_has_the_median_and_the_ratios(self):
        rounds = [load("g", 1, "nginx", 10), load("g", 1, "hostler", 5, p50=0.5)]
        lines = self.lines("g", ["nginx", "hostler"], rounds)
        self.assertEqual(lines, ["| g: new connection, one request | 10.0 µs | 5.0 µs (0.50; 0.50; 1.00) |"])

    def test_a_peer_without_valid_rounds_has_an_empty_cell(self):
        lines = self.lines("g", ["nginx", "haproxy"], [load("g", 1, "nginx", 20000)])
        self.assertEqual(lines, ["| g: new connection, one request | 20.00 ms | - |"])

    def test_threads_and_memory_have_a_row_for_each_figure(self):
        threads = {"scenario": "l", "round": 1, "peer": "nginx", "cpu_us_1": 10, "cpu_us_2": 12.5, "growth": 1.6}
        memory = {"scenario": "k"} | idle(1, "nginx", 1, 2)
        rows = [line.split("|")[2].strip() for line in self.lines("kl", ["nginx"], [threads, memory])]
        self.assertEqual(rows, ["1.0 KiB", "2.0 KiB", "10.0 µs", "12.5 µs", "1.60 ×"])


if __name__ == "__main__":
    unittest.main()
