"""The proxies that are compared, the worker behind them, and a client before them."""

import re
import shutil
import socket
import struct
import sys
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(1, str(HERE.parent / "compare"))

from machine import Failure, Process, free_ports, wait_for  # noqa: E402

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
# How long nothing comes before a request, or what a proxy has to say, counts as over.
QUIET = 0.06


class Worker:
    """Keeps every byte of every connection, and answers what it is told to."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.received = []
        self.changed = threading.Condition()
        self.busy = 0
        self.answer, self.then = OK, "close"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            with self.changed:
                self.busy += 1
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        data = bytearray()
        with self.changed:
            self.received.append(data)
        try:
            self.talk(connection, data)
        except OSError:
            pass
        finally:
            connection.close()
            with self.changed:
                self.busy -= 1
                self.changed.notify_all()

    def talk(self, connection, data):
        connection.settimeout(5)
        while b"\r\n\r\n" not in data and b"\n\n" not in data:
            piece = connection.recv(1 << 16)
            if not piece:
                return
            data += piece
        if not drain(connection, data):
            return
        connection.settimeout(5)
        connection.sendall(self.answer)
        if self.then == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif self.then == "stay":
            drain(connection, data, 0.3)

    def take(self):
        """What has come since the last time, connection by connection, once nobody is busy."""
        with self.changed:
            self.changed.wait_for(lambda: not self.busy, 10)
            received, self.received = self.received, []
        return [bytes(data) for data in received if data]


def drain(connection, data, quiet=QUIET):
    """Reads until nothing comes for a while. Whether the other side is still there."""
    connection.settimeout(quiet)
    try:
        while piece := connection.recv(1 << 16):
            data += piece
        return False
    except TimeoutError:
        return True


class Proxy:
    def __init__(self, name, folder, binary):
        self.name = name
        self.worker = Worker()
        self.port, admin = free_ports(2)
        template = HERE / {"hostler": "hostler.yaml", "nginx": "nginx.conf", "haproxy": "haproxy.cfg"}[name]
        values = {"DIR": folder, "PORT": self.port, "ADMIN": admin, "WORKER": self.worker.port}
        config = folder / template.name
        config.write_text(re.sub(r"@([A-Z]+)@", lambda match: str(values.get(match[1], match[0])), template.read_text()))
        command = {"hostler": [binary, "serve", "-c"], "nginx": [binary, "-c"], "haproxy": [binary, "-db", "-f"]}[name]
        self.process = Process(name, [*command, config], range(256), folder / f"{name}.log")
        try:
            wait_for(self.listens, 10, f"{name} listens")
        except BaseException:
            self.process.stop()
            raise

    def listens(self):
        self.process.check_alive()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def ask(self, data, count=1):
        """Sends these bytes. What came back, and how the connection ended: closed, reset or open."""
        received, ended = bytearray(), "open"
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.settimeout(3)
            try:
                client.sendall(data)
                while piece := client.recv(1 << 16):
                    received += piece
                    # All that is owed has come; some wait with the end of the connection.
                    client.settimeout(0.3 if received.count(b"HTTP/1.") >= count else 3)
                ended = "closed"
            except TimeoutError:
                pass
            except OSError:
                ended = "reset"
        return bytes(received), ended

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()


def find(name):
    # Debian keeps servers where users do not look.
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


__all__ = ["Failure", "OK", "Proxy", "find"]
