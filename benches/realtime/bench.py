"""One publish to N held event streams, and to N WebSockets: Hostler, and beside it nginx with nchan (Debian: libnginx-mod-nchan) where it is there.

    python benches/realtime/bench.py [--holds 5000 10000] [--rounds 20] [--hostler target/release/hostler] [--load target/release/examples/bench-holds]

For each: the time from before the publish to the last delivery (median and worst of all rounds), CPU of the gateway for each delivery, memory
for each hold. The app behind Hostler is asked once for each of them and has nothing to do after that.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nGrip-Hold: stream\r\nGrip-Channel: room\r\n"
    b"Grip-Keep-Alive: :\\n\\n; format=cstring; timeout=300\r\nContent-Length: 3\r\n\r\n:\n\n"
)

SUBSCRIBE = b'c:{"type":"subscribe","channel":"room"}'
OPENED = b"OPEN\r\nTEXT %x\r\n%s\r\n" % (len(SUBSCRIBE), SUBSCRIBE)


def events(body):
    """An answer in WebSocket over HTTP."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/websocket-events\r\nSec-WebSocket-Extensions: grip\r\n"
    return head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def app(path):
    """Answers every request with the same instructions."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1024)

    def serve(connection):
        with connection:
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    data += piece
                head, data = data.split(b"\r\n\r\n", 1)
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                length = int(length[1]) if length else 0
                while len(data) < length:
                    data += connection.recv(65536)
                body, data = data[:length], data[length:]
                if head.startswith(b"POST"):
                    connection.sendall(events(OPENED if body.startswith(b"OPEN") else b""))
                else:
                    connection.sendall(ANSWER)

    def accept():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def fill(name, folder, **values):
    text = (HERE / name).read_text()
    for key, value in {"folder": folder, **values}.items():
        text = text.replace(f"@{key}@", str(value))
    assert not re.search(r"@\w+@", text), text
    file = Path(folder) / name
    file.write_text(text)
    return file


def children(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    return [int(child) for child in found]


def wait_for(port):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"nobody listens on port {port}")


def measure(arguments, command, name, port, publish, path, form):
    peer = subprocess.Popen(command)
    try:
        wait_for(port)
        wait_for(publish)
        # nginx serves with its children.
        pids = ",".join(map(str, [peer.pid, *children(peer.pid)]))
        for kind, holds in [(kind, holds) for kind in arguments.kinds for holds in arguments.holds]:
            at = "/ws" if (kind, form) == ("ws", "grip") else path
            load = [arguments.load, kind, f"127.0.0.1:{port}", at, str(holds), str(arguments.rounds), pids]
            load += [f"127.0.0.1:{publish}", "/publish/" if form == "grip" else "/publish", "room", form]
            result = subprocess.run(load, capture_output=True, text=True)
            if result.returncode:
                sys.exit(f"{name}: {result.stderr}")
            row = json.loads(result.stdout)
            print(
                f"{name:8} {row['holds']:6} {kind:3} holds: last {row['last_ms']:7.2f} ms (worst {row['last_ms_worst']:7.2f}), half "
                f"{row['half_ms']:7.2f} ms, {row['cpu_us_per_delivery']:6.2f} us CPU each, {row['kib_per_hold']:6.2f} KiB each",
                flush=True,
            )
            # The clients of the row before are gone.
            time.sleep(1)
    finally:
        peer.send_signal(signal.SIGINT if form == "grip" else signal.SIGTERM)
        try:
            peer.wait(15)
        except subprocess.TimeoutExpired:
            peer.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--holds", type=int, nargs="+", default=[5000, 10000])
    parser.add_argument("--kinds", nargs="+", choices=["sse", "ws"], default=["sse", "ws"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--hostler", default=str(ROOT / "target/release/hostler"))
    parser.add_argument("--load", default=str(ROOT / "target/release/examples/bench-holds"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        app(Path(folder) / "app.sock")
        port, publish = free_port(), free_port()
        config = fill("hostler.yaml", folder, port=port, publish=publish)
        command = [arguments.hostler, "serve", "-c", str(config)]
        measure(arguments, command, "hostler", port, publish, "/events", "grip")
        module = next((path for path in NCHAN if Path(path).exists()), None)
        if not shutil.which("nginx") or not module:
            print("nginx with nchan is not here (apt-get install libnginx-mod-nchan)")
            return
        port, publish = free_port(), free_port()
        config = fill("nginx.conf", folder, port=port, publish=publish, module=module)
        command = ["nginx", "-p", folder, "-c", str(config)]
        measure(arguments, command, "nchan", port, publish, "/events", "nchan")


NCHAN = ["/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/share/nginx/modules/ngx_nchan_module.so"]

if __name__ == "__main__":
    os.chdir(ROOT)
    main()
