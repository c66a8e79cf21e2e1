import unittest

import instructions
import syscalls
from machine import Failure
from peers import Peer
from profiles import needed
from scenarios import chosen

STRACE = """% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ------------------
 60.00    0.012000           1      2000         7 recvfrom
 40.00    0.008000           1      1990           writev
  0.00    0.000000           0         3           epoll_wait
------ ----------- ----------- --------- --------- ------------------
100.00    0.020000           1      3993         7 total
"""

CALLGRIND = """events: Ir
summary: 1000

fl=(1) a.rs
fn=(1) app::work::h0123456789abcdef
10 100
+2 50
cfn=(2) app::help'2
calls=3 20
12 700
* 5

fn=(2)
20 600
fi=(2) b.rs
-4 45
fn=(3) main
calls=0 0
0 1000
"""


class Strace(unittest.TestCase):
    def test_calls_are_read_with_and_without_errors(self):
        self.assertEqual(syscalls.read_summary(STRACE), {"recvfrom": 2000, "writev": 1990, "epoll_wait": 3})

    def test_a_summary_without_calls_is_a_failure(self):
        with self.assertRaises(Failure):
            syscalls.read_summary("")

    def test_words_have_the_sum_and_leave_out_what_is_next_to_nothing(self):
        words = syscalls.in_words({"recvfrom": 2.0, "writev": 1.99, "epoll_wait": 0.003})
        self.assertEqual(words, "3.99 per request: recvfrom 2.00, writev 1.99")


class Callgrind(unittest.TestCase):
    def test_a_function_has_its_own_cost_alone(self):
        self.assertEqual(instructions.read_profile(CALLGRIND), {"app::work": 155, "app::help": 645})

    def test_a_dump_without_costs_is_a_failure(self):
        with self.assertRaises(Failure):
            instructions.read_profile("events: Ir\n")

    def test_what_both_runs_have_in_common_goes(self):
        found = instructions.difference({"a": 150, "c": 9}, {"a": 250, "b": 100, "c": 9}, 100)
        self.assertEqual(found, {"a": 1.0, "b": 1.0, "c": 0.0})

    def test_words_begin_with_the_sum(self):
        lines = list(instructions.in_words({"a": 1500.0, "b": 500.0}))
        self.assertEqual([line.split() for line in lines], [
            "2,000 instructions per request".split(), ["1,500", "75%", "a"], ["500", "25%", "b"],
        ])


class Tools(unittest.TestCase):
    def test_only_what_is_used_is_needed(self):
        peers = [Peer("nginx", "nginx", "nginx"), Peer("before", "hostler", "hostler")]
        self.assertEqual(needed("syscalls", chosen("eh"), peers), {"openssl", "strace", "nginx", "wrk", "gunicorn"})
        self.assertEqual(needed("instructions", chosen("a"), peers[1:]), {"openssl", "valgrind", "h2load"})


if __name__ == "__main__":
    unittest.main()
