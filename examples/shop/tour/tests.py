import hashlib
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

from django.core.management import call_command
from django.http import UnreadablePostError
from django.test import Client, RequestFactory, SimpleTestCase, override_settings

from . import apps, counter, journal, views


class Pages(SimpleTestCase):
    def test_index_shows_the_address_the_client_asked_for(self):
        response = self.client.get("/", secure=True, headers={"host": "localhost:8443"})
        self.assertContains(response, "<code>https://localhost:8443</code>")

    def test_a_host_that_is_not_ours_is_refused_without_repeating_it(self):
        with self.assertLogs("django.security.DisallowedHost"):
            response = self.client.get("/", headers={"host": "elsewhere.example"})
        self.assertEqual((response.status_code, response.content), (400, b"Bad request.\n"))

    def test_head_is_taken_by_every_page(self):
        for path in ["/", "/slow?seconds=0", "/work?ms=0", "/upload", "/stream", "/events", "/page", "/login", "/count", "/environ"]:
            with self.subTest(path):
                self.assertEqual(self.client.head(path).status_code, 200)

    def test_post_is_refused_where_nothing_is_changed(self):
        for path in ["/", "/slow", "/stream", "/events", "/page", "/bytes/1", "/header/1", "/redirect"]:
            with self.subTest(path):
                with self.assertLogs("django.request"):
                    self.assertEqual(self.client.post(path).status_code, 405)

    def test_redirect_is_a_path(self):
        response = self.client.get("/redirect")
        self.assertEqual((response.status_code, response["Location"]), (302, "/"))


class Slow(SimpleTestCase):
    def test_slow_sleeps_as_long_as_asked(self):
        with mock.patch("time.sleep") as sleep:
            response = self.client.get("/slow?seconds=2.5")
        sleep.assert_called_once_with(2.5)
        self.assertEqual(response.json()["seconds"], 2.5)

    def test_numbers_out_of_range_are_refused_with_the_range(self):
        for given in ["61", "-1", "nan", "inf", "x", ""]:
            with self.subTest(given), mock.patch("time.sleep") as sleep, self.assertLogs("django.request"):
                response = self.client.get("/slow", {"seconds": given})
                self.assertEqual(response.status_code, 400)
                self.assertEqual(response.content, b"seconds must be a number from 0 to 60.\n")
                sleep.assert_not_called()


class Work(SimpleTestCase):
    def test_work_takes_milliseconds_and_tells_name_and_size(self):
        for send, size in [(self.client.get, 0), (lambda path: self.client.post(path, b"x" * 300_000, "text/plain"), 300_000)]:
            with self.subTest(size), mock.patch("time.sleep") as sleep:
                answer = send("/work?ms=250&id=a").json()
                sleep.assert_called_once_with(0.25)
                self.assertEqual((answer["id"], answer["size"]), ("a", size))

    def test_work_after_the_response_is_as_long_as_set(self):
        with override_settings(FINISH_MS=200), mock.patch("time.sleep") as sleep:
            apps.work_after_the_response(sender=None)
        sleep.assert_called_once_with(0.2)

    def test_a_view_with_a_fault_is_a_500(self):
        self.client.raise_request_exception = False
        with self.assertLogs("django.request"):
            self.assertEqual(self.client.get("/failure").status_code, 500)

    def test_a_header_has_the_size_asked_for(self):
        self.assertEqual(len(self.client.get("/header/8000")["X-Large"]), 8000)
        with self.assertLogs("django.request"):
            self.assertEqual(self.client.get("/header/65537").status_code, 400)


class Upload(SimpleTestCase):
    def test_upload_tells_size_and_digest_of_the_raw_body(self):
        body = bytes(range(256)) * 1000
        response = self.client.post("/upload", body, content_type="application/octet-stream")
        self.assertEqual(
            response.json(),
            {
                "size": 256000,
                "sha256": hashlib.sha256(body).hexdigest(),
                "content_length": "256000",
                "transfer_encoding": None,
            },
        )

    def test_upload_is_read_in_pieces(self):
        request = RequestFactory().post("/upload", b"x" * 200_000, content_type="text/plain")
        with mock.patch.object(request, "read", wraps=request.read) as read:
            views.upload(request)
        self.assertEqual(read.call_args_list, [mock.call(64 * 1024)] * 5)
        self.assertFalse(hasattr(request, "_body"))

    def test_upload_needs_no_csrf_token(self):
        response = Client(enforce_csrf_checks=True).post("/upload", b"x", content_type="text/plain")
        self.assertEqual(response.status_code, 200)

    def test_upload_that_breaks_off_is_a_400(self):
        request = RequestFactory().post("/upload", b"x", content_type="text/plain")
        with mock.patch.object(request, "read", side_effect=UnreadablePostError):
            self.assertEqual(views.upload(request).status_code, 400)


class Streams(SimpleTestCase):
    def test_stream_waits_between_its_chunks(self):
        with mock.patch("time.sleep") as sleep:
            response = self.client.get("/stream?chunks=3&delay=0.5")
            chunks = list(response.streaming_content)
        self.assertEqual(chunks, [b"chunk 1 of 3\n", b"chunk 2 of 3\n", b"chunk 3 of 3\n"])
        self.assertEqual(sleep.call_args_list, [mock.call(0.5)] * 2)
        self.assertNotIn("Content-Length", response)

    def test_events_must_not_be_buffered_or_cached(self):
        response = self.client.get("/events?count=2&delay=0")
        self.assertEqual(response["Content-Type"], "text/event-stream")
        self.assertEqual(response["X-Accel-Buffering"], "no")
        self.assertIn("no-store", response["Cache-Control"])
        self.assertEqual(b"".join(response), b"id: 1\ndata: event 1 of 2\n\nid: 2\ndata: event 2 of 2\n\n")

    def test_page_has_exactly_the_length_it_announces(self):
        for size in [0, 1, 65536, 200_001]:
            with self.subTest(size):
                response = self.client.get("/page", {"size": size})
                self.assertEqual(response["Content-Length"], str(size))
                self.assertEqual(sum(map(len, response)), size)

    def test_page_size_is_whole(self):
        with self.assertLogs("django.request"):
            self.assertContains(self.client.get("/page?size=1.5"), "size must be a whole number", status_code=400)

    def test_bytes_repeat_a_pattern(self):
        response = self.client.get("/bytes/12")
        self.assertEqual((response.content, response["Content-Length"]), (b"hostler\nhost", "12"))

    def test_bytes_are_bounded(self):
        with self.assertLogs("django.request"):
            self.assertEqual(self.client.get("/bytes/1048577").status_code, 400)


class Status(SimpleTestCase):
    def test_status_is_the_one_asked_for(self):
        for code in [200, 204, 304]:
            with self.subTest(code):
                self.assertEqual(self.client.get(f"/status/{code}").status_code, code)
        for code in [404, 418, 503]:
            with self.subTest(code), self.assertLogs("django.request"):
                self.assertEqual(self.client.get(f"/status/{code}").status_code, code)

    def test_status_outside_of_the_final_ones_is_refused(self):
        for code in [100, 199, 600]:
            with self.subTest(code), self.assertLogs("django.request"):
                self.assertEqual(self.client.get(f"/status/{code}").status_code, 400)

    def test_status_takes_post_without_a_token(self):
        self.assertEqual(Client(enforce_csrf_checks=True).post("/status/201").status_code, 201)


class Login(SimpleTestCase):
    """Over https Django compares Origin with the scheme and Host it believes in."""

    def log_in(self, origin, secure=True):
        client = Client(enforce_csrf_checks=True, headers={"host": "localhost:8443"})
        client.get("/login", secure=secure)
        form = {"name": "Ada", "csrfmiddlewaretoken": client.cookies["csrftoken"].value}
        return client, client.post("/login", form, secure=secure, headers={"origin": origin})

    def test_origin_of_the_same_site_passes(self):
        client, response = self.log_in("https://localhost:8443")
        self.assertRedirects(response, "/login", fetch_redirect_response=False)
        self.assertContains(client.get("/login", secure=True), "Hello, Ada.")

    def test_who_has_logged_in_may_pass_and_everybody_else_is_sent_here(self):
        client, _ = self.log_in("https://localhost:8443")
        answer = client.get("/may-pass", secure=True)
        self.assertEqual((answer.status_code, answer["Remote-User"]), (204, "Ada"))
        self.assertRedirects(self.client.get("/may-pass"), "/login", fetch_redirect_response=False)

    def test_origin_of_another_site_fails(self):
        with self.assertLogs("django.security.csrf"):
            _, response = self.log_in("https://elsewhere.example")
        self.assertEqual(response.status_code, 403)

    def test_a_lost_scheme_would_fail(self):
        with self.assertLogs("django.security.csrf"):
            _, response = self.log_in("https://localhost:8443", secure=False)
        self.assertEqual(response.status_code, 403)

    def test_cookies_are_for_https_only(self):
        client, _ = self.log_in("https://localhost:8443")
        self.assertTrue(client.cookies["csrftoken"]["secure"])
        self.assertTrue(client.cookies["sessionid"]["secure"])


class Count(SimpleTestCase):
    def setUp(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.path = Path(folder) / "run" / "count"
        self.enterContext(override_settings(COUNTER_FILE=self.path))

    def test_only_post_counts(self):
        self.assertEqual(self.client.get("/count").json()["count"], 0)
        self.assertEqual(self.client.post("/count").json()["count"], 1)
        self.assertEqual(self.client.post("/count").json()["count"], 2)
        self.assertEqual(self.client.get("/count").json()["count"], 2)
        self.assertEqual(self.path.read_text(), "2")

    def test_the_post_has_counted_before_it_waits(self):
        with mock.patch("time.sleep", side_effect=lambda _: self.assertEqual(counter.read(self.path), 1)) as sleep:
            self.client.post("/count?seconds=5")
        sleep.assert_called_once_with(5.0)

    def test_a_refused_post_does_not_count(self):
        with self.assertLogs("django.request"):
            self.client.post("/count?seconds=x")
        self.assertEqual(counter.read(self.path), 0)

    def test_no_increment_is_lost_between_workers(self):
        with ThreadPoolExecutor(8) as pool:
            numbers = list(pool.map(lambda _: counter.increment(self.path), range(200)))
        self.assertEqual(sorted(numbers), list(range(1, 201)))


class Environ(SimpleTestCase):
    def test_environ_is_sorted_strings_of_the_request_alone(self):
        with mock.patch.dict("os.environ", SHOP_SECRET_KEY="s3cret"):
            response = self.client.get("/environ?a=b", secure=True, headers={"x-forwarded-for": "192.0.2.1"})
        seen = json.loads(response.content)
        self.assertEqual(list(seen), sorted(seen))
        self.assertEqual(seen["HTTP_X_FORWARDED_FOR"], "192.0.2.1")
        self.assertEqual(seen["wsgi.url_scheme"], "https")
        self.assertEqual(seen["QUERY_STRING"], "a=b")
        self.assertNotIn("s3cret", response.content.decode())

    def test_environ_of_the_process_is_left_out(self):
        response = self.client.get("/environ", PATH="/usr/bin", DATABASE_PASSWORD="s3cret")
        self.assertNotIn("PATH", response.json())
        self.assertNotIn("DATABASE_PASSWORD", response.json())

    def test_what_identifies_the_user_is_hidden(self):
        response = self.client.get(
            "/environ", headers={"cookie": "a=1; sessionid=abc; csrftoken=def; b=2", "authorization": "Bearer abc"}
        )
        self.assertEqual(response.json()["HTTP_COOKIE"], "a=1; sessionid=(hidden); csrftoken=(hidden); b=2")
        self.assertEqual(response.json()["HTTP_AUTHORIZATION"], "(hidden)")


class StaticFiles(SimpleTestCase):
    def test_the_page_names_its_files_as_they_were_collected(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        with override_settings(STATIC_ROOT=folder):
            call_command("collectstatic", interactive=False, verbosity=0)
            page = self.client.get("/assets").content.decode()
        paths = json.loads((folder / "staticfiles.json").read_text())["paths"]
        for name in ["tour/assets.css", "tour/assets.js", "tour/icon.svg", "tour/horse.svg"]:
            self.assertNotEqual(paths[name], name)
            self.assertIn(f'"/static/{paths[name]}"', page)
            self.assertTrue((folder / paths[name]).is_file())


class Journal(SimpleTestCase):
    def setUp(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.path = Path(folder) / "journal"

    def run_app(self, app, query="id=a"):
        environ = {"REQUEST_METHOD": "POST", "QUERY_STRING": query}
        return journal.Journaled(app, str(self.path))(environ, None)

    def lines(self):
        return [line.split() for line in self.path.read_text().splitlines()]

    def test_a_run_lasts_from_the_call_to_the_end_of_close(self):
        seen = []

        class Pieces(list):
            def close(inner):
                seen.append(len(self.lines()))

        answer = self.run_app(lambda environ, start: Pieces([b"a", b"b"]))
        self.assertEqual(list(answer), [b"a", b"b"])
        answer.close()
        self.assertEqual(seen, [1])
        begin, end = self.lines()
        self.assertEqual((begin[0], begin[4:]), ("begin", ["POST", "a"]))
        self.assertEqual(end[:3], ["end", *begin[1:3]])
        self.assertLessEqual(int(begin[3]), int(end[3]))

    def test_a_run_that_fails_ends(self):
        def fails(environ, start):
            raise RuntimeError

        with self.assertRaises(RuntimeError):
            self.run_app(fails)
        self.assertEqual([line[0] for line in self.lines()], ["begin", "end"])

    def test_every_run_has_a_name_of_its_own_and_every_id_is_one_word(self):
        app = journal.Journaled(lambda environ, start: [], str(self.path))
        for query in ["", "id=a+b", "x=1&id=c", "id=%C3%A4%0A"]:
            app({"REQUEST_METHOD": "GET", "QUERY_STRING": query}, None).close()
        begins = [line for line in self.lines() if line[0] == "begin"]
        self.assertEqual([line[5] for line in begins], ["-", "a%20b", "c", "%C3%A4%0A"])
        self.assertEqual(len({line[1] for line in begins}), 4)
