import tempfile
import unittest
from pathlib import Path

import bench
import stage
from clients import Outcome, percentile


def app_with(journal):
    app = stage.App.__new__(stage.App)
    app.journal = journal
    return app


class Counting(unittest.TestCase):
    def test_a_run_that_was_killed_has_no_end(self):
        with tempfile.TemporaryDirectory() as folder:
            journal = Path(folder) / "journal"
            journal.write_text("begin 7.0 7 10 GET a\nbegin 8.0 8 20 POST b\nend 7.0 7 30\n")
            self.assertEqual(app_with(journal).runs(), [("GET", "a", 10, 30), ("POST", "b", 20, None)])
            journal.unlink()
            self.assertEqual(app_with(journal).runs(), [])

    def test_the_end_of_one_run_at_the_begin_of_the_next_is_no_overlap(self):
        runs = [("GET", "a", 10, 20), ("GET", "b", 20, 30), ("GET", "c", 25, 40), ("GET", "d", 26, None)]
        self.assertEqual(stage.most_at_once(runs), 2)
        self.assertEqual(stage.most_at_once([]), 0)

    def test_losses_tell_what_ran_from_what_did_not(self):
        outcomes = [
            Outcome("GET", "a", "502", 0),
            Outcome("POST", "b", "ok", 0),
            Outcome("POST", "c", "502 eof_before_head", 0),
            Outcome("POST", "d", "502 socket_missing", 0),
        ]
        runs = [("POST", name, 0, 1) for name in "bbc"]
        counted = bench.losses(outcomes, runs)
        self.assertEqual(counted[:6], [4, 1, 2, 1, 1, 1])

    def test_percentiles_are_values_that_were_there(self):
        self.assertEqual([percentile([3, 1, 2], percent) for percent in (0, 50, 99, 100)], [1, 2, 3, 3])
        self.assertEqual(percentile(list(range(1, 101)), 99), 99)


if __name__ == "__main__":
    unittest.main()
