import argparse
import tempfile
import unittest
import unittest.mock
from pathlib import Path

from binaries import named_binary
from compare import contestants_of, idle_count, needed, taking_part, turned
from machine import Failure
from measurement import Reading, check_log, check_outcome, figures, first_answer, from_cache, make_files
from outcomes import Outcome
from peers import ARGUMENTS, Peer, haproxy_count, hostler_count, nginx_count, settled, varnish_count
from scenarios import LETTERS, SCENARIOS, able, chosen


def peers(*kinds):
    return [Peer(kind, kind, kind) for kind in kinds]


class Order(unittest.TestCase):
    def test_every_round_begins_with_another_peer(self):
        self.assertEqual([turned("ABC", n) for n in range(4)], ["ABC", "BCA", "CAB", "ABC"])


class Choice(unittest.TestCase):
    def test_scenarios_come_in_their_order(self):
        self.assertEqual([each.key for each in chosen("ka")], ["a", "k"])

    def test_letters_are_unique(self):
        self.assertEqual(len(set(LETTERS)), len(SCENARIOS))

    def test_only_what_is_used_is_needed(self):
        self.assertEqual(needed(chosen("g"), peers("hostler")), {"openssl"})
        self.assertEqual(needed(chosen("dh"), peers("nginx", "hostler")), {"openssl", "h2load", "wrk", "gunicorn", "nginx"})
        self.assertEqual(needed(chosen("v"), peers("varnish")), {"openssl", "wrk", "varnishd", "varnishstat"})

    def test_messages_of_websockets_are_counted_by_the_origin(self):
        for each in chosen("tu"):
            self.assertTrue(each.websocket and not each.file and each.opens.startswith("websocket"))

    def test_haproxy_serves_no_files(self):
        self.assertEqual([each.key for each in chosen("aqs") if each.can_do("haproxy")], ["a", "s"])
        self.assertTrue(all(each.can_do("nginx") for each in SCENARIOS))

    def test_varnish_answers_from_its_cache_and_knows_no_tls(self):
        self.assertEqual([each.key for each in SCENARIOS if each.can_do("varnish")], ["v", "x"])
        self.assertEqual([peer.has_tls for peer in peers("varnish", "hostler")], [False, True])

    def test_who_can_do_none_of_it_takes_no_part(self):
        everybody = peers("nginx", "haproxy", "varnish", "hostler")
        self.assertEqual([peer.kind for peer in able(everybody, chosen("m"))], ["nginx", "hostler"])
        self.assertEqual([taking_part(each, everybody) for each in chosen("amvw")], [3, 2, 4, 3])

    def test_varnish_is_left_out_where_access_logs_are_compared(self):
        options = argparse.Namespace(only=["varnish", "nginx"], also=[], hostler=None, origin=None, load=None, access_log=False)
        self.assertEqual([peer.kind for peer in contestants_of(options, chosen("v"))], ["nginx", "varnish"])
        options.access_log = True
        self.assertEqual([peer.kind for peer in contestants_of(options, chosen("v"))], ["nginx"])

    def test_a_further_binary_has_a_name_of_its_own(self):
        self.assertEqual(named_binary("before=/x/y=z")[0], "before")
        for text in ("before", "nginx=/x", "varnish=/x", "hostler=/x", "=x", "a b=/x", "before="):
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
        said = "# pxname,svname,scur,req_tot,\nedge,FRONTEND,3,345,\ntcp_origin,BACKEND,0,7,\nadmin,FRONTEND,1,5,\n"
        self.assertEqual(haproxy_count(said, asked=5), 345)
        said = "MAIN.client_req             345         0.00 Good client requests received\n"
        self.assertEqual(varnish_count(said), 345)
        with self.assertRaises(Failure):
            haproxy_count("<html>", asked=1)
        with self.assertRaises(Failure):
            varnish_count("Could not get hold of varnishd")

    def test_a_count_is_taken_when_it_does_not_change_any_more(self):
        self.enterContext(unittest.mock.patch("peers.time.sleep"))
        counts = iter([1, 5, 7, 7, 9])
        self.assertEqual(settled(lambda: next(counts)), 7)
        with self.assertRaises(Failure):
            settled(lambda: next(counts, 1), within=0)

    def test_the_time_for_which_the_load_was_held_does_not_count(self):
        first = Reading(began=1, ended=2, proxy=0, ours=0, machine=0, served=0)
        last = Reading(began=4, ended=9, proxy=1, ours=0, machine=1, served=1000)
        found = figures(first, last, Outcome(1000, 0, 1, 1))
        self.assertEqual((found["cpu_us"], found["rate"], found["proxy_busy"]), (1000, 500, 0.5))


class Origin:
    """Counts, as the origin does."""

    def __init__(self):
        self.requests = 0

    def served(self):
        return self.requests


class Bench:
    def __init__(self):
        self.origin = Origin()

    def expected(self, scenario):
        return b"x" * scenario.answer


class Proxy:
    """Keeps an answer once it has passed so many."""

    name = "proxy"

    def __init__(self, bench, keeps_after):
        self.bench, self.keeps_after, self.asked = bench, keeps_after, 0

    def check(self, scenario, expected):
        self.asked += 1
        self.bench.origin.requests += self.asked <= self.keeps_after
        return None, len(expected)


class Cache(unittest.TestCase):
    def setUp(self):
        self.bench = Bench()

    def asked(self, key, keeps_after):
        """How often a proxy is asked before the load comes."""
        proxy = Proxy(self.bench, keeps_after)
        first_answer(self.bench, chosen(key)[0], proxy)
        return proxy.asked

    def test_the_load_comes_when_the_cache_answers(self):
        self.enterContext(unittest.mock.patch("measurement.time.sleep"))
        self.assertEqual([self.asked("v", keeps_after=1), self.asked("v", keeps_after=3), self.asked("a", keeps_after=9)], [2, 4, 1])

    def test_a_peer_that_keeps_nothing_is_not_measured(self):
        self.enterContext(unittest.mock.patch("measurement.time.sleep"))
        with self.assertRaisesRegex(Failure, "proxy does not answer from its cache"):
            self.asked("x", keeps_after=1000)

    def test_a_round_in_which_the_origin_was_asked_is_not_valid(self):
        with from_cache(self.bench, chosen("a")[0]):
            self.bench.origin.requests += 1
        with from_cache(self.bench, chosen("y")[0]):
            pass
        with self.assertRaisesRegex(Failure, "2 requests reached the origin"):
            with from_cache(self.bench, chosen("y")[0]):
                self.bench.origin.requests += 2

    def test_nobody_but_the_proxy_can_count_hits(self):
        for each in chosen("vwxy"):
            self.assertTrue(each.is_alone and each.cached and each.path == f"/cached/{each.answer}")

    def test_varnish_has_a_pool_for_each_thread_and_starts_with_nothing_kept(self):
        words = " ".join(ARGUMENTS["varnish"])
        self.assertIn("thread_pools=@THREADS@", words)
        self.assertIn("-n @KEPT@", words)


class Validity(unittest.TestCase):
    def check(self, key, outcome, reached):
        check_outcome(chosen(key)[0], outcome, reached)

    def test_as_many_reach_the_origin_as_are_answered_and_under_way(self):
        self.check("a", Outcome(100, 0, 1, 1), 164)
        for reached in (99, 165):
            with self.assertRaises(Failure):
                self.check("a", Outcome(100, 0, 1, 1), reached)

    def test_who_counts_is_named(self):
        for key, words in (("a", "reached the origin"), ("m", "were counted by the proxy"), ("v", "were counted by the proxy")):
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
