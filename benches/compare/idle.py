"""Scenario k: what a connection costs that is kept open between two requests."""

import select
import socket
import time
from contextlib import ExitStack

from machine import Failure, memory_bytes
from peers import BODY, tls_client

WARM_UP = 100
SETTLE = 1.0
REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def bytes_per_connection(proxy, scheme, count):
    """
    The growth of the proxy's memory by `count` connections, each of which had one request answered, divided by `count`.

    A first hundred connections come and go before the first reading, so that what a proxy allocates once is not counted.
    """
    with ExitStack() as first:
        open_connections(proxy, scheme, WARM_UP, first)
    time.sleep(SETTLE)
    before = memory_bytes(proxy.pids)
    with ExitStack() as stack:
        connections = open_connections(proxy, scheme, count, stack)
        time.sleep(SETTLE)
        after = memory_bytes(proxy.pids)
        check_open(proxy.name, connections)
    return (after - before) / count


def open_connections(proxy, scheme, count, stack):
    port = proxy.plain_port if scheme == "http" else proxy.tls_port
    context = tls_client() if scheme == "https" else None
    connections = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port), timeout=5)
        if context:
            connection = context.wrap_socket(connection)
        stack.callback(connection.close)
        connection.sendall(REQUEST)
        read_answer(proxy.name, connection)
        connections.append(connection)
    return connections


def read_answer(name, connection):
    """Reads one answer to its last byte: it ends with the body that every answer has."""
    answer = b""
    while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < len(BODY):
        piece = connection.recv(16384)
        if not piece:
            raise Failure(f"{name} closed a connection instead of answering")
        answer += piece
    if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(BODY):
        raise Failure(f"{name} gave a wrong answer: {answer[:200]!r}")


def check_open(name, connections):
    """A closed connection costs nothing, which would flatter the proxy."""
    poll = select.poll()
    for connection in connections:
        poll.register(connection, select.POLLRDHUP)
    closed = len(poll.poll(0))
    if closed:
        raise Failure(f"{name} closed {closed} of {len(connections)} idle connections")
