"""What is compared: each peer with its configuration file, and the processes it becomes."""

import base64
import csv
import http.client
import re
import shutil
import socket
import ssl
import subprocess
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

from machine import Failure, Process, free_ports, tree, wait_for
from scenarios import KIB, MIB

HERE = Path(__file__).resolve().parent
BODY = b"x" * KIB

TEMPLATES = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg", "varnish": "varnish.vcl", "hostler": "hostler.yaml"}
# In front of the configuration. @NAMES@ are filled in as there.
ARGUMENTS = {
    "nginx": ["-c"],
    "haproxy": ["-db", "-f"],
    # As much memory as Hostler's cache has; a pool of threads for each core.
    "varnish": [
        *["-F", "-n", "@KEPT@", "-T", "none", "-a", "127.0.0.1:@PLAIN_PORT@"],
        *["-s", "malloc,256m", "-p", "thread_pools=@THREADS@", "-f"],
    ],
    "hostler": ["serve", "-c"],
}
ASK_VERSION = {"nginx": "-v", "haproxy": "-v", "varnish": "-V", "hostler": "--version"}
# What has to be installed for a kind; ours is built.
PROGRAMS = {"nginx": ["nginx"], "haproxy": ["haproxy"], "varnish": ["varnishd", "varnishstat"], "hostler": []}


@dataclass(frozen=True)
class Peer:
    """A proxy: what it is called, which of the four kinds it is, and where its binary lies."""

    name: str
    kind: str
    binary: Path | str

    def version(self):
        result = subprocess.run([self.binary, ASK_VERSION[self.kind]], capture_output=True, text=True, timeout=10)
        return (result.stdout + result.stderr).strip().splitlines()[0]

    def template(self):
        return (HERE / TEMPLATES[self.kind]).read_text()

    @property
    def has_tls(self):
        return self.kind != "varnish"

    @property
    def counts_when_idle(self):
        """What a thread of Varnish has answered is counted when its client has been silent for a moment (`timeout_linger`)."""
        return self.kind == "varnish"


def find(program):
    # Debian keeps servers where users do not look.
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")


class Proxy:
    """A peer that runs: fresh for every measurement. `before` is a program to run it under, as a list of words."""

    def __init__(self, peer, bench, placement, before=(), patience=10):
        self.peer = peer
        self.name = peer.name
        self.plain_port, self.tls_port, self.admin_port = free_ports(3)
        self.asked = 0
        self.log = bench.folder / f"{peer.name}-access.log"
        # Varnish maps its log there: a disk would write all of it, and have its threads wait.
        self.kept = (bench.in_memory if peer.kind == "varnish" else bench.folder) / f"{peer.name}-kept"
        errors = bench.folder / f"{peer.name}.log"
        for left in (self.log, errors):
            left.unlink(missing_ok=True)
        shutil.rmtree(self.kept, ignore_errors=True)
        config = bench.folder / f"{peer.name}-{TEMPLATES[peer.kind]}"
        config.write_text(self.fill(peer.template(), bench, placement))
        arguments = [self.fill(each, bench, placement) for each in ARGUMENTS[peer.kind]]
        command = [*before, peer.binary, *arguments, config]
        with open(self.log, "ab") as log:
            # HAProxy's access log is its standard output; the others open the file themselves.
            stdout = log if peer.kind == "haproxy" else None
            self.process = Process(peer.name, command, placement.proxy, errors, stdout)
        try:
            wait_for(self.is_ready, patience, f"{peer.name} answers")
            self.pids = tree(self.process.child.pid)
        except BaseException:
            self.process.stop()
            raise

    def fill(self, template, bench, placement):
        values = {
            "DIR": bench.folder,
            "KEPT": self.kept,
            "PLAIN_PORT": self.plain_port,
            "TLS_PORT": self.tls_port,
            "ADMIN_PORT": self.admin_port,
            "FILES": bench.files,
            "ORIGIN_PORT": bench.origin.port,
            "ORIGIN_SOCKET": bench.origin.socket,
            "APP_SOCKET": bench.app_socket,
            "CERTIFICATE": bench.certificate,
            "PRIVATE_KEY": bench.private_key,
            "THREADS": placement.threads,
            "CONNECTIONS": bench.connections,
            "ACCESS_LOG": self.log,
            # These begin a line, and make it a comment or not.
            "LOG": "" if bench.access_log else "#",
            "NO_LOG": "#" if bench.access_log else "",
            "WITH_FILES": "" if bench.with_files else "#",
            "WITH_CACHE": "" if bench.with_cache else "#",
            "WITH_COUNT": "" if bench.with_files or bench.with_cache else "#",
            "WITH_GZIP": "" if bench.with_gzip else "#",
            "WITH_WEBSOCKETS": "" if bench.with_websockets else "#",
        }
        return re.sub(r"@([A-Z_]+)@", lambda match: str(values[match[1]]) if match[1] in values else match[0], template)

    def url(self, scenario):
        port = self.plain_port if scenario.scheme == "http" else self.tls_port
        return f"{scenario.scheme}://127.0.0.1:{port}{scenario.path}"

    def is_ready(self):
        self.process.check_alive()
        try:
            self.request("http", "GET", "/", BODY)
            if self.peer.has_tls:
                self.request("https", "GET", "/", BODY)
            return True
        except (OSError, http.client.HTTPException):
            return False

    def check(self, scenario, expected):
        """One request whose answer is looked at in full. Returns what TLS agreed on, and the bytes of the body."""
        if scenario.websocket:
            return self.converse(scenario.scheme, scenario.path, expected)
        return self.request(scenario.scheme, scenario.method, scenario.path, expected, scenario.encoding)

    def request(self, scheme, method, path, expected, encoding=None):
        if scheme == "http":
            connection = http.client.HTTPConnection("127.0.0.1", self.plain_port, timeout=5)
        else:
            connection = http.client.HTTPSConnection("127.0.0.1", self.tls_port, timeout=5, context=tls_client())
        try:
            headers = {"Accept-Encoding": encoding or "identity"}
            connection.request(method, path, body=bytes(10 * MIB) if method == "POST" else None, headers=headers)
            agreed = "{1} {0}".format(*connection.sock.cipher()) if scheme == "https" else None
            answer = connection.getresponse()
            sent = answer.read()
            if answer.getheader("Content-Encoding") != encoding:
                raise Failure(f"{self.name}: {method} {path} is not sent as {encoding or 'it is'}")
            body = zlib.decompress(sent, wbits=31) if encoding == "gzip" else sent
            if answer.status != 200 or body != expected:
                gave = f"{answer.status} with {len(body)} bytes, not 200 with {len(expected)}"
                raise Failure(f"{self.name}: {method} {path} gave {gave}, or others")
            return agreed, len(sent)
        finally:
            connection.close()

    def converse(self, scheme, path, message):
        """One message through a WebSocket, and the goodbye, as `check`."""
        port = self.plain_port if scheme == "http" else self.tls_port
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            wire = tls_client().wrap_socket(plain, server_hostname="localhost") if scheme == "https" else plain
            with wire:
                fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                key = base64.b64encode(bytes(16)).decode()
                wire.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Sec-WebSocket-Key: {key}\r\n\r\n".encode())
                lines = wire.makefile("rb")
                status = lines.readline()
                while lines.readline().strip():
                    pass
                if not status.startswith(b"HTTP/1.1 101 "):
                    raise Failure(f"{self.name}: GET {path} gave {status!r}, not a WebSocket")
                wire.sendall(bytes([0x81, 0x80 | len(message), 0, 0, 0, 0]) + message)
                heard = lines.read(2 + len(message))
                if heard != bytes([0x81, len(message)]) + message:
                    raise Failure(f"{self.name}: a message of {len(message)} bytes came back as {heard!r}")
                return ("{1} {0}".format(*wire.cipher()) if scheme == "https" else None), len(message)

    def served(self):
        """How many requests it has answered by its own count, without those that ask for the count."""
        if self.peer.counts_when_idle:
            return settled(lambda: varnish_count(varnish_says(self.kept)))
        self.asked += 1
        return COUNTS[self.peer.kind](self.admin_says(COUNT_PATHS[self.peer.kind]), self.asked)

    def admin_says(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def logged(self):
        """How many lines its access log has. It is whole when the proxy has ended."""
        with open(self.log, "rb") as lines:
            return sum(1 for line in lines if line.startswith(b"{") and line.endswith(b"}\n"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()


def nginx_count(text, asked):
    """stub_status: ` accepts handled requests`, as three numbers. It counts whoever asks."""
    found = re.search(r"^ \d+ \d+ (\d+) $", text, re.M)
    if not found:
        raise Failure(f"nginx does not say how many requests it has had:\n{text}")
    return int(found[1]) - asked


def hostler_count(text, asked):
    """All series of its counter of requests, which knows nothing of the admin listener's, `asked` of them."""
    return sum(int(value) for value in re.findall(r"^hostler_requests_total\{.*\} (\d+)$", text, re.M))


def haproxy_count(text, asked):
    """The statistics as CSV, of which the frontend of the load has a line of its own."""
    rows = csv.DictReader(text.removeprefix("# ").splitlines())
    found = [row["req_tot"] for row in rows if (row["pxname"], row["svname"]) == ("edge", "FRONTEND")]
    if len(found) != 1:
        raise Failure(f"HAProxy does not say how many requests it has had:\n{text}")
    return int(found[0])


def settled(count, every=0.2, within=5):
    """A number that does not change any more."""
    until, last = time.monotonic() + within, count()
    while time.monotonic() < until:
        time.sleep(every)
        before, last = last, count()
        if last == before:
            return last
    raise Failure(f"Varnish goes on counting for {within} s, though nobody asks it for anything")


def varnish_says(folder):
    """The counter in the memory that varnishd shares."""
    command = ["varnishstat", "-1", "-n", str(folder), "-f", "MAIN.client_req"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=10)
    return result.stdout + result.stderr


def varnish_count(text):
    found = re.search(r"^MAIN\.client_req +(\d+) ", text, re.M)
    if not found:
        raise Failure(f"Varnish does not say how many requests it has had:\n{text}")
    return int(found[1])


COUNT_PATHS = {"nginx": "/requests", "haproxy": "/requests;csv", "hostler": "/metrics"}
COUNTS = {"nginx": nginx_count, "haproxy": haproxy_count, "hostler": hostler_count}


def tls_client():
    """Takes the bench's own certificate; TLS 1.3 and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def make_certificate(folder):
    """A self-signed ECDSA certificate, as small and quick as they come today. HAProxy wants both files in one."""
    certificate, private_key = folder / "certificate.pem", folder / "private_key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(private_key), "-out", str(certificate)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if result.returncode != 0:
        raise Failure(f"openssl could not make a certificate:\n{result.stderr}")
    (folder / "both.pem").write_bytes(certificate.read_bytes() + private_key.read_bytes())
    return certificate, private_key
