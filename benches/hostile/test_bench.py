import unittest

import bench
import reading
import rows

GET = b"GET / HTTP/1.1\r\nHost: shop.example\r\n"


def request(refused="", forwarded=()):
    return rows.Request("a", b"", list(forwarded), refused)


class Tables(unittest.TestCase):
    def test_both_are_read_to_the_byte(self):
        self.assertEqual(rows.unescape(r"a\r\n\t\0\\\xff{b}|c"), b"a\r\n\t\0\\\xff{b}|c")
        self.assertEqual(rows.unescape(r"<\{3:a\{2:b}\r}>"), b"<abb\rabb\rabb\r>")
        self.assertGreater(len(rows.requests()), 300)
        self.assertGreater(len(rows.responses()), 100)

    def test_a_row_tells_what_is_sent_on_and_what_is_refused(self):
        row = rows.request("a", "b", r"> GET / HTTP/1.1\r\n\~\r\n then 400 bad_host [gunicorn 400]", "-", "why")
        self.assertEqual((row.forwarded, row.refused), ([(b"GET / HTTP/1.1\r\n", b"\r\n")], "400 bad_host"))


class Requests(unittest.TestCase):
    def test_what_has_one_reading_has_no_fault(self):
        for data in [
            GET + b"\r\n",
            GET + b"Content-Length: 2\r\n\r\nhi",
            GET + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n",
            GET + b"X-Forwarded-For: 127.0.0.1\r\nConnection: close\r\n\r\n",
        ]:
            self.assertEqual(reading.faults(data), [], data)

    def test_every_fault_has_its_name(self):
        for data, fault in [
            (b"GET / HTTP/1.1\r\n\r\n", "no Host"),
            (GET + b"Host: a\r\n\r\n", "two Hosts"),
            (GET + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "length and chunked"),
            (GET + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", "two lengths"),
            (GET + b"Content-Length: 2\r\n\r\nhi!", "bytes behind it"),
            (GET + b"Transfer-Encoding: x\r\n\r\n", "Transfer-Encoding"),
            (GET + b"Transfer-Encoding: chunked\r\n\r\n2 \r\nhi\r\n0\r\n\r\n", "chunk"),
            (GET + b"A: b\nC: d\r\n\r\n", "bare LF"),
            (GET + b"A: b\rC\r\n\r\n", "bare CR"),
            (GET + b"A: b\0\r\n\r\n", "control byte"),
            (GET + b"A: b\r\n c\r\n\r\n", "fold"),
            (GET + b"A : b\r\n\r\n", "field name"),
            (GET + b"A_b: c\r\n\r\n", "underscore"),
            (GET + b"Upgrade: h2c\r\n\r\n", "hop-by-hop"),
            (GET + b"X-Forwarded-For: 6.6.6.6, 127.0.0.1\r\n\r\n", "forged"),
            (b"GET /a/%2E./b HTTP/1.1\r\nHost: shop.example\r\n\r\n", "dots"),
            (b"GET /a%5cb HTTP/1.1\r\nHost: shop.example\r\n\r\n", "backslash"),
            (b"GET http://shop.example/ HTTP/1.1\r\nHost: shop.example\r\n\r\n", "absolute-form"),
        ]:
            self.assertEqual(reading.faults(data), [fault], data)

    def test_what_has_no_end_is_no_request(self):
        for data in [b"GET", GET + b"Content-Length: 2\r\n\r\nh", GET + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi"]:
            self.assertRaises(reading.Incomplete, reading.faults, data)

    def test_the_verdict_follows_what_the_worker_got(self):
        plain = GET + b"\r\n"
        hostile, legal = request("400 bad_host"), request(forwarded=[(GET, b"\r\n")])
        self.assertEqual(bench.judge(hostile, [], [400])[0], "refused")
        self.assertEqual(bench.judge(hostile, [plain], [200])[0], "mended")
        self.assertEqual(bench.judge(hostile, [GET + b"A_b: c\r\n\r\n"], [200])[0], "ambiguous")
        self.assertEqual(bench.judge(hostile, [GET + b"Content-Length: 9\r\n\r\n"], [400])[0], "refused")
        self.assertEqual(bench.judge(legal, [plain], [200])[0], "served")
        self.assertEqual(bench.judge(legal, [], [400])[0], "refused")
        self.assertEqual(bench.judge(legal, [plain.replace(b"/ ", b"/x ", 1)], [200])[0], "otherwise")
        self.assertEqual(bench.judge(legal, [GET + b"Forwarded: for=6.6.6.6\r\n\r\n"], [200])[0], "forged")


class Answers(unittest.TestCase):
    def test_a_client_knows_a_cut_answer(self):
        head = b"HTTP/1.1 200 OK\r\n"
        for data, ended, expected in [
            (head + b"Content-Length: 2\r\n\r\nok", "open", (200, b"ok", True)),
            (head + b"Content-Length: 3\r\n\r\nok", "closed", (200, b"ok", False)),
            (head + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "open", (200, b"ok", True)),
            (head + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "closed", (200, b"ok", False)),
            (head + b"Connection: close\r\n\r\nok", "closed", (200, b"ok", True)),
            (head + b"Connection: close\r\n\r\nok", "reset", (200, b"ok", False)),
        ]:
            self.assertEqual(reading.answers(data, "GET", ended), [expected], data)

    def test_the_verdict_follows_what_the_client_got(self):
        row = rows.Response("a", "POST", b"", "stay", "cut", 200, b"")
        self.assertEqual(bench.judge_answer(row, [(200, b"hello", False)], "closed")[0], "cut")
        self.assertEqual(bench.judge_answer(row, [(200, b"hello", True)], "closed")[0], "passed for whole")
        self.assertEqual(bench.judge_answer(row, [(502, b"page", True)], "closed")[0], "failed")
        self.assertEqual(bench.judge_answer(row, [], "reset")[0], "cut")
