import unittest
from types import SimpleNamespace

from report import ratios, table


def idle(number, peer, plain, tls):
    return {"round": number, "peer": peer, "plain": plain * 1024, "tls": tls * 1024}


class Ratios(unittest.TestCase):
    ROUNDS = [idle(1, "nginx", 1, 10), idle(1, "hostler", 2, 5), idle(2, "hostler", 3, 6), idle(3, "nginx", 9, 9)]

    def test_a_ratio_needs_both_peers_in_the_same_round(self):
        self.assertEqual(ratios(self.ROUNDS, "hostler", "tls"), [0.5])

    def test_table_names_every_peer_and_the_ratio_of_all_but_nginx(self):
        lines = list(table(SimpleNamespace(key="k", title="memory", tool=None), self.ROUNDS))
        self.assertEqual(
            [line.split() for line in lines[1:]],
            [
                "nginx plain 5.00 (1.00-9.00) KiB TLS 9.50 (9.00-10.00) KiB n=2".split(),
                "hostler plain 2.50 (2.00-3.00) KiB TLS 5.50 (5.00-6.00) KiB n=2".split(),
                "plain: 2.00 (2.00-2.00) x nginx".split(),
                "TLS: 0.50 (0.50-0.50) x nginx".split(),
            ],
        )

    def test_table_without_valid_rounds_is_its_title(self):
        self.assertEqual(len(list(table(SimpleNamespace(key="a", title="x", tool="wrk"), []))), 1)


if __name__ == "__main__":
    unittest.main()
