"""Ordinary pages beside a thousand held connections: the examples as they are, on two sync workers each, over TLS.

    .venv/bin/python benches/realtime/pages.py [--held 1000] [--pages 1000] [--hostler target/release/hostler]

For the chat (WebSockets) and for the live notes (event streams): how long the app's own page takes, one after the other on one
connection, with nobody else there; with so many held; and while five messages a second are said to all of them. The crowd and
the page's client are processes of their own on this machine.
"""

import argparse
import asyncio
import http.client
import json
import os
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import websockets

ROOT = Path(__file__).resolve().parent.parent.parent
KEY = "only-for-trying-it-on-ones-own-machine"
EXAMPLES = {
    "chat": ("chat:app", "/chat", {"channel": "chat", "ws-message": {"content": "x" * 64}}),
    "live": ("live.wsgi", "/events/", {"channel": "events-notes", "http-stream": {"content": "data: x\n\n"}}),
}
# Messages a second that are said to all.
RATE = 5


def trusting():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def crowd(port, path, count):
    """Opens them, says so, and reads until it is ended."""
    context, gate = trusting(), asyncio.Semaphore(20)

    async def web_socket():
        async with gate:
            connection = await websockets.connect(
                f"wss://127.0.0.1:{port}{path}", ssl=context, proxy=None, ping_interval=None, open_timeout=60
            )
        ready.append(connection)
        async for _ in connection:
            pass

    async def stream():
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await reader.readuntil(b"stream-open")
        ready.append(writer)
        while await reader.read(65536):
            pass

    ready = []
    tasks = [asyncio.ensure_future(web_socket() if path == "/chat" else stream()) for _ in range(count)]
    while len(ready) < count:
        for task in tasks:
            if task.done():
                task.result()
                sys.exit("a connection of the crowd has ended")
        await asyncio.sleep(0.05)
    print("held", flush=True)
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    sys.exit("a connection of the crowd has ended")


def pages(port, count):
    """Milliseconds of each page, sorted."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=trusting(), timeout=30)
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        connection.request("GET", "/", headers={"Host": "localhost"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        times.append((time.perf_counter() - begun) * 1e3)
    return sorted(times)


def tell(what, times):
    at = lambda share: times[min(int(len(times) * share), len(times) - 1)]
    print(f"  {what:34} p50 {at(0.5):6.2f} ms   p99 {at(0.99):6.2f} ms   worst {times[-1]:7.2f} ms", flush=True)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def started(command, **options):
    return subprocess.Popen(command, start_new_session=True, **options)


def measure(name, arguments, folder):
    app, path, item = EXAMPLES[name]
    port, publish = free_port(), free_port()
    source = ROOT / "examples" / name
    lines = [line for line in (source / "hostler.yaml").read_text().splitlines() if 'bind: "[::1]:' not in line]
    text = "\n".join(lines).replace("127.0.0.1:8443", f"127.0.0.1:{port}").replace("127.0.0.1:5561", f"127.0.0.1:{publish}")
    text = text.replace("./run/gunicorn.sock", f"{folder}/gunicorn.sock").replace("to: stdout", f"to: {folder}/access.log")
    config = Path(folder) / "hostler.yaml"
    config.write_text(text + f"\nlimits: {{ connections_per_client: {arguments.held + 100} }}\n")
    grip = f"http://127.0.0.1:{publish}/?iss=hostler&key={KEY}"
    variables = {**os.environ, "LIVE_FOLDER": folder, "GRIP_URL": grip, "PYTHONDONTWRITEBYTECODE": "1", "XDG_STATE_HOME": folder}
    if name == "live":
        subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], cwd=source, env=variables, check=True)
    bind = ["--bind", f"unix:{folder}/gunicorn.sock", "--no-control-socket", "--log-level", "error"]
    processes = [started([sys.executable, "-m", "gunicorn", app, "--workers", "2", *bind], cwd=source, env=variables)]
    log = open(f"{folder}/hostler.log", "w")
    processes.append(started([arguments.hostler, "serve", "-c", str(config)], env=variables, stderr=log, stdout=log))
    try:
        wait_for_page(port)
        print(f"{name}: {arguments.held} connections", flush=True)
        pages(port, 50)
        tell("nobody else", pages(port, arguments.pages))
        held = [sys.executable, __file__, "--crowd", str(port), path, str(arguments.held)]
        begun = time.perf_counter()
        processes.append(started(held, stdout=subprocess.PIPE, text=True))
        if processes[-1].stdout.readline() != "held\n":
            sys.exit("the crowd could not be held")
        print(f"  (opened in {time.perf_counter() - begun:.1f} s)")
        tell("held", pages(port, arguments.pages))
        speaker = [sys.executable, __file__, "--speak", str(publish), json.dumps(item)]
        processes.append(started(speaker))
        tell(f"held, and told {RATE} times a second", pages(port, arguments.pages))
        if any(process.poll() is not None for process in processes):
            sys.exit("one of them has ended")
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(40)


def wait_for_page(port):
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            return pages(port, 1)
        except OSError:
            time.sleep(0.1)
    sys.exit("the example does not answer")


def speak(publish, item):
    import jwt

    while True:
        token = jwt.encode({"iss": "hostler", "exp": int(time.time()) + 60}, KEY)
        request = urllib.request.Request(
            f"http://127.0.0.1:{publish}/publish/",
            json.dumps({"items": [json.loads(item)]}).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=10).read()
        time.sleep(1 / RATE)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held", type=int, default=1000)
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--hostler", default=str(ROOT / "target/release/hostler"))
    arguments = parser.parse_args()
    for name in EXAMPLES:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, arguments, folder)


if __name__ == "__main__":
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if sys.argv[1:2] == ["--crowd"]:
        asyncio.run(crowd(int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
    elif sys.argv[1:2] == ["--speak"]:
        speak(sys.argv[2], sys.argv[3])
    else:
        main()
