import tempfile
import unittest
from pathlib import Path

from outcomes import Outcome, percentile, read_bench_load, read_h2load, read_wrk
from machine import Failure

WRK = """Running 1s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   666.92us  179.38us   3.88ms   93.26%
    Req/Sec    86.86k    12.63k   93.06k    90.00%
  Latency Distribution
     50%  667.00us
     75%  696.00us
     90%  737.00us
     99%    1.12ms
  86252 requests in 1.00s, 12.50MB read
Requests/sec:  85995.65
Transfer/sec:     12.47MB
"""

H2LOAD = """Application protocol: h2

finished in 2.00s, 1.50 req/s, 8.46MB/s
requests: 3 total, 103 started, 3 done, 3 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 3 2xx, 0 3xx, 0 4xx, 0 5xx
"""


class Wrk(unittest.TestCase):
    def test_requests_and_latencies_are_read_in_milliseconds(self):
        self.assertEqual(read_wrk(WRK), Outcome(86252, 0, 0.667, 1.12))

    def test_refused_and_broken_requests_are_failures(self):
        more = "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 5\n"
        self.assertEqual(read_wrk(WRK.replace("Requests/sec", more + "Requests/sec")).failed, 15)

    def test_output_without_a_count_is_no_outcome(self):
        with self.assertRaises(Failure):
            read_wrk("unable to connect")


class H2load(unittest.TestCase):
    def answers(self, text):
        path = Path(self.enterContext(tempfile.TemporaryDirectory())) / "answers.log"
        path.write_text(text)
        return path

    def test_latencies_come_from_the_log(self):
        answers = self.answers("1\t200\t1000\n2\t200\t2000\n3\t200\t9000\n")
        self.assertEqual(read_h2load(H2LOAD, answers), Outcome(3, 0, 2.0, 9.0))

    def test_an_answer_that_is_not_200_is_a_failure(self):
        answers = self.answers("1\t200\t1000\n2\t204\t2000\n3\t-1\t9000\n")
        self.assertEqual(read_h2load(H2LOAD, answers).failed, 2)

    def test_http_1_is_no_outcome(self):
        with self.assertRaises(Failure):
            read_h2load(H2LOAD.replace("protocol: h2", "protocol: http/1.1"), self.answers(""))


class BenchLoad(unittest.TestCase):
    def test_its_line_is_read_in_milliseconds(self):
        line = '{"requests": 5, "failed": 1, "full": 2, "resumed": 3, "p50_us": 1500, "p99_us": 20000, "why": "refused"}\n'
        self.assertEqual(read_bench_load(line), Outcome(5, 1, 1.5, 20.0, 2, 3, "refused"))

    def test_anything_else_is_no_outcome(self):
        for text in ("", "{}", "thread panicked"):
            with self.assertRaises(Failure):
                read_bench_load(text)


class Percentile(unittest.TestCase):
    def test_percentile_is_the_nearest_rank(self):
        values = list(range(100, 0, -1))
        self.assertEqual((percentile(values, 50), percentile(values, 99), percentile([7], 99)), (50, 99, 7))

    def test_percentile_of_nothing_is_none(self):
        self.assertIsNone(percentile([], 50))


if __name__ == "__main__":
    unittest.main()
