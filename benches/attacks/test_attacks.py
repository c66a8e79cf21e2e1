import unittest

import frames
from gateway import Failure, grown, is_counter, read_series
from honest import Answer, Figures

import bench
import drops
import h1_attacks
import h2_attacks
import measure
from storm import Tally


def figures(p99, answered=100):
    return Figures(100, answered, 1.0, p99, p99, {})


def result(**changed):
    fields = {
        "name": "ping",
        "limits": "default",
        "quiet": figures(5.0),
        "beside": figures(14.0),
        "tally": Tally(),
        "rss": (20 << 20, 80 << 20, 30 << 20),
        "reached": (90, 0),
        "left": "",
        "cpu": 0.1,
        "log_lines": 0,
        "seconds": 20,
        "others": (0.0, 0.0),
    }
    return measure.Result(**(fields | changed))


class Frames(unittest.TestCase):
    def test_frames_are_read_as_they_were_written_however_they_are_cut(self):
        written = frames.settings((4, 0)) + frames.headers(5, b"\x82") + frames.window_update(0, 7)
        whole = list(frames.Reader().feed(written))
        self.assertEqual([kind for kind, *_ in whole], [frames.SETTINGS, frames.HEADERS, frames.WINDOW_UPDATE])
        self.assertEqual(whole[1], (frames.HEADERS, 5, 5, b"\x82"))
        reader, in_bytes = frames.Reader(), []
        for byte in written:
            in_bytes += reader.feed(bytes((byte,)))
        self.assertEqual(in_bytes, whole)

    def test_integers_are_those_of_rfc_7541(self):
        self.assertEqual(frames.integer(10, 5), b"\x0a")
        self.assertEqual(frames.integer(1337, 5), b"\x1f\x9a\x0a")
        self.assertEqual(frames.integer(42, 8), b"\x2a")

    def test_a_status_is_found_in_every_form_it_is_sent_in(self):
        for block, status in [
            (b"\x88rest", "200"),
            (b"\x20\x8d", "404"),
            (b"\x3f\xe1\x1f\x8e", "500"),
            (b"\x08\x03503", "503"),
            (b"\x48\x03503", "503"),
            (b"\x48\x82\x64\x02", "302"),  # RFC 7541, C.6.1
            (b"\x08\x83\x6c\x0c\xff", "503"),
            (b"", "?"),
            (b"\x20", "?"),
            (b"\x00", "?"),
        ]:
            self.assertEqual(frames.status_of(block), status, block)


class Attacks(unittest.TestCase):
    def test_names_are_unique_and_begin_no_other_by_accident(self):
        names = [attack.name for attack in bench.ATTACKS]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual([attack.name for attack in measure.chosen(bench.ATTACKS, "ping")], ["ping"])
        self.assertGreater(len(measure.chosen(bench.ATTACKS, "rapid,tiny")), 3)
        with self.assertRaises(Failure):
            measure.chosen(bench.ATTACKS, "pong")

    def test_streams_are_whole_frames_in_rising_order(self):
        for make in (h2_attacks.rapid_reset, h2_attacks.hpack_bomb, h2_attacks.length_that_lies):
            chunk = h2_attacks.per_stream(make)[0]
            reader = frames.Reader()
            streams = [stream for _, _, stream, _ in reader.feed(chunk)]
            self.assertFalse(reader.bytes)
            self.assertEqual(streams, sorted(streams))
            self.assertEqual(streams[0], 1)

    def test_large_heads_are_within_the_default_limits(self):
        head = h1_attacks.with_large_head(b"/up")
        self.assertLess(len(head), 32 << 10)
        self.assertGreater(len(head), 29 << 10)
        self.assertLess(head.count(b"\r\n"), 100)

    def test_a_client_hello_is_a_handshake_record(self):
        hello = h1_attacks.client_hello()
        self.assertEqual(hello[0], 22)
        self.assertGreater(len(hello), 100)

    def test_phases_have_a_share_each(self):
        self.assertEqual(len({phase.name for phase in drops.PHASES}), len(drops.PHASES))
        for phase in drops.PHASES:
            self.assertIsInstance(phase.first(), bytes)


class Verdicts(unittest.TestCase):
    def failed(self, **changed):
        return [name for name, holds in result(**changed).verdicts().items() if not holds]

    def test_each_criterion_fails_by_itself(self):
        self.assertEqual(self.failed(), [])
        self.assertEqual(self.failed(beside=figures(5.0, answered=99)), ["answers"])
        self.assertEqual(self.failed(beside=figures(15.1)), ["p99"])
        self.assertEqual(self.failed(rss=(20 << 20, 84 << 20, 30 << 20)), ["memory"])
        self.assertEqual(self.failed(rss=(20 << 20, 80 << 20, 36 << 20)), ["back"])
        self.assertEqual(self.failed(left="hostler_waiting 1"), ["left"])
        self.assertEqual(self.failed(log_lines=51), ["log"])

    def test_no_answer_at_all_is_not_within_any_bound(self):
        none = Figures.of([Answer("h1", 0, 10, "no answer in 10 s")])
        self.assertEqual(self.failed(beside=none), ["answers", "p99"])
        self.assertEqual(none.others, {"h1: no answer in 10 s": 1})

    def test_figures_count_only_what_was_answered(self):
        answers = [Answer("h1", 0, 0.002, "ok"), Answer("h1", 0, 0.004, "ok"), Answer("h2", 0, 9, "503")]
        seen = Figures.of(answers)
        self.assertEqual((seen.asked, seen.answered, seen.longest), (3, 2, 4.0))

    def test_metrics_are_read_and_compared(self):
        text = '# HELP a b\nhostler_a_total{x="1 2"} 3\nhostler_b 1\n'
        series = read_series(text)
        self.assertEqual(series, {'hostler_a_total{x="1 2"}': 3.0, "hostler_b": 1.0})
        self.assertEqual([is_counter(name) for name in series], [True, False])
        self.assertEqual(grown(series, {'hostler_a_total{x="1 2"}': 5.0, "hostler_b": 1.0, "hostler_c_total": 2.0}), {
            'hostler_a_total{x="1 2"}': 2,
            "hostler_c_total": 2,
        })


if __name__ == "__main__":
    unittest.main()
