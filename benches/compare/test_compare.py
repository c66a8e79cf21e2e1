import argparse
import tempfile
import unittest
from pathlib import Path

from binaries import named_binary
from compare import idle_count, needed, turned
from machine import Failure
from measurement import check_log, check_outcome, make_files
from outcomes import Outcome
from peers import hostler_count, nginx_count
from scenarios import LETTERS, SCENARIOS, chosen


class Order(unittest.TestCase):
    def test_every_round_begins_with_another_peer(self):
        self.assertEqual([turned("ABC", n) for n in range(4)], ["ABC", "BCA", "CAB", "ABC"])


class Choice(unittest.TestCase):
    def test_scenarios_come_in_their_order(self):
        self.assertEqual([each.key for each in chosen("ka")], ["a", "k"])

    def test_letters_are_unique(self):
        self.assertEqual(len(set(LETTERS)), len(SCENARIOS))

    def test_only_what_is_used_is_needed(self):
        self.assertEqual(needed(chosen("g"), ["hostler"]), {"openssl"})
        self.assertEqual(needed(chosen("dh"), ["nginx", "hostler"]), {"openssl", "h2load", "wrk", "gunicorn", "nginx"})

    def test_messages_of_websockets_are_counted_by_the_origin(self):
        for each in chosen("tu"):
            self.assertTrue(each.websocket and not each.file and each.opens.startswith("websocket"))

    def test_haproxy_serves_no_files(self):
        self.assertEqual([each.key for each in chosen("aqs") if each.can_do("haproxy")], ["a", "s"])
        self.assertTrue(all(each.can_do("nginx") for each in SCENARIOS))

    def test_a_further_binary_has_a_name_of_its_own(self):
        self.assertEqual(named_binary("before=/x/y=z")[0], "before")
        for text in ("before", "nginx=/x", "=x", "a b=/x", "before="):
            with self.assertRaises(argparse.ArgumentTypeError):
                named_binary(text)


class IdleConnections(unittest.TestCase):
    def test_their_number_fits_the_limit_of_files(self):
        self.assertEqual(idle_count(None, 1 << 20), 9000)
        self.assertEqual(idle_count(1000, 20000), 1000)
        with self.assertRaises(Failure):
            idle_count(9800, 20000)


class Files(unittest.TestCase):
    def test_a_file_has_its_size_as_its_name(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        files = make_files(folder, chosen("amno"))
        self.assertEqual({each.name: each.stat().st_size for each in files.iterdir()}, {"1024": 1024, "102400": 102400})
        self.assertEqual({each.path for each in chosen("mno")}, {"/files/1024", "/files/102400"})

    def test_requests_are_those_of_the_load(self):
        said = "Active connections: 3 \nserver accepts handled requests\n 12 12 345 \nReading: 0 Writing: 1 Waiting: 2 \n"
        self.assertEqual(nginx_count(said, asked=5), 340)
        with self.assertRaises(Failure):
            nginx_count("<html>404", asked=1)
        said = """# TYPE hostler_requests_total counter
hostler_requests_total{method="GET",route="/files/",site="any",status="200"} 12
hostler_requests_total{method="GET",route="/",site="any",status="200"} 3
hostler_request_seconds_count{route="/"} 99
"""
        self.assertEqual(hostler_count(said, asked=5), 15)


class Validity(unittest.TestCase):
    def check(self, key, outcome, reached):
        check_outcome(chosen(key)[0], outcome, reached)

    def test_as_many_reach_the_origin_as_are_answered_and_under_way(self):
        self.check("a", Outcome(100, 0, 1, 1), 164)
        for reached in (99, 165):
            with self.assertRaises(Failure):
                self.check("a", Outcome(100, 0, 1, 1), reached)

    def test_who_counts_is_named(self):
        for key, words in (("a", "reached the origin"), ("m", "were counted by the proxy")):
            with self.assertRaisesRegex(Failure, words):
                self.check(key, Outcome(100, 0, 1, 1), 99)

    def test_a_failed_request_or_none_at_all_is_not_valid(self):
        for outcome in (Outcome(100, 1, 1, 1), Outcome(0, 0, None, None)):
            with self.assertRaises(Failure):
                self.check("a", outcome, outcome.requests)

    def test_handshakes_are_of_the_kind_asked_for(self):
        self.check("e", Outcome(100, 0, 1, 1, full=100), 100)
        self.check("f", Outcome(100, 0, 1, 1, full=16, resumed=84), 100)
        for key, full in (("e", 99), ("f", 17)):
            with self.assertRaises(Failure):
                self.check(key, Outcome(100, 0, 1, 1, full=full, resumed=100 - full), 100)

    def test_the_access_log_has_a_line_for_each_answer(self):
        check_log(1000, 1000)
        check_log(1000, 1200)
        for lines in (999, 1300):
            with self.assertRaises(Failure):
                check_log(1000, lines)


if __name__ == "__main__":
    unittest.main()
