"""What is compared: each peer with its configuration file, and the origin behind it."""

import http.client
import re
import shutil
import ssl
import subprocess
from pathlib import Path

from machine import Failure, Process, free_ports, tree, wait_for

HERE = Path(__file__).resolve().parent
BODY = b"x" * 1024


class Origin:
    """The small server behind every peer (origin.rs)."""

    def __init__(self, binary, folder, cpus):
        self.socket = folder / "origin.sock"
        self.process = Process("origin", [binary, self.socket], cpus, folder / "origin.log", stdout=subprocess.PIPE)
        words = self.process.child.stdout.readline().split()
        if len(words) != 2 or words[0] != b"ready":
            self.process.stop()
            raise Failure(f"The origin did not start:\n{self.process.last_words()}")
        self.port = int(words[1])
        self.socket.chmod(0o777)  # nginx's worker is another user when the bench runs as root
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)

    def served(self):
        """How many requests it has answered."""
        self.connection.request("GET", "/served")
        return int(self.connection.getresponse().read())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()
        self.process.stop()


class Peer:
    """A proxy: how it is found, configured and started."""

    def __init__(self, name, template, command, version):
        self.name = name
        self.template = HERE / template
        self.command = command  # the configuration file's path is appended
        self.version_command = version

    def version(self):
        result = subprocess.run(self.version_command, capture_output=True, text=True, timeout=10)
        return (result.stdout + result.stderr).strip().splitlines()[0]

    def start(self, bench):
        return Proxy(self, bench)


def nginx():
    binary = find_nginx()
    return Peer("nginx", "nginx.conf", [binary, "-c"], [binary, "-v"])


def find_nginx():
    # Debian keeps it where users do not look.
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def hostler(binary):
    return Peer("hostler", "hostler.yaml", [binary, "serve", "-c"], [binary, "--version"])


class Proxy:
    """A peer that runs: fresh for every measurement."""

    def __init__(self, peer, bench):
        self.name = peer.name
        self.plain_port, self.tls_port = free_ports(2)
        config = bench.folder / peer.template.name
        config.write_text(self.fill(peer.template.read_text(), bench))
        self.process = Process(peer.name, [*peer.command, config], bench.proxy_cpus, bench.folder / f"{peer.name}.log")
        try:
            wait_for(self.is_ready, 10, f"{peer.name} answers")
            self.pids = tree(self.process.child.pid)
        except BaseException:
            self.process.stop()
            raise

    def fill(self, template, bench):
        values = {
            "DIR": bench.folder,
            "PLAIN_PORT": self.plain_port,
            "TLS_PORT": self.tls_port,
            "ORIGIN_PORT": bench.origin.port,
            "ORIGIN_SOCKET": bench.origin.socket,
            "CERTIFICATE": bench.certificate,
            "PRIVATE_KEY": bench.private_key,
        }
        return re.sub(r"@([A-Z_]+)@", lambda match: str(values[match[1]]) if match[1] in values else match[0], template)

    def url(self, scheme, path):
        return f"{scheme}://127.0.0.1:{self.plain_port if scheme == 'http' else self.tls_port}{path}"

    def is_ready(self):
        self.process.check_alive()
        try:
            self.check("http", "/")
            self.check("https", "/")
            return True
        except (OSError, http.client.HTTPException):
            return False

    def check(self, scheme, path):
        """One request whose answer is looked at in full. Returns what TLS agreed on."""
        if scheme == "http":
            connection = http.client.HTTPConnection("127.0.0.1", self.plain_port, timeout=5)
        else:
            connection = http.client.HTTPSConnection("127.0.0.1", self.tls_port, timeout=5, context=tls_client())
        try:
            connection.request("GET", path)
            agreed = "{1} {0}".format(*connection.sock.cipher()) if scheme == "https" else None
            answer = connection.getresponse()
            body = answer.read()
            if (answer.status, body) != (200, BODY):
                raise Failure(f"{self.name}: GET {path} gave {answer.status} with {len(body)} bytes, not 200 with 1024")
            return agreed
        finally:
            connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()


def tls_client():
    """Takes the bench's own certificate; TLS 1.3 and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def make_certificate(folder):
    """A self-signed ECDSA certificate, as small and quick as they come today."""
    certificate, private_key = folder / "certificate.pem", folder / "private_key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(private_key), "-out", str(certificate)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if result.returncode != 0:
        raise Failure(f"openssl could not make a certificate:\n{result.stderr}")
    return certificate, private_key
