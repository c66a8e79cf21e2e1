"""Opens sockets and becomes a command that has them, as systemd would start it.

    pass_sockets.py [--to-another] NAME=ADDRESS ... -- COMMAND ARGUMENTS

With --to-another they are there and meant for another process, as when a service leaves its environment to what it starts.
An address is 127.0.0.1:0, or the path of a unix socket. Names are what FileDescriptorName= says in a socket unit.
"""

import fcntl
import os
import socket
import sys

FIRST = 3  # SD_LISTEN_FDS_START


def listening(address: str) -> socket.socket:
    if address.startswith("/"):
        opened = socket.socket(socket.AF_UNIX)
        opened.bind(address)
    else:
        host, port = address.rsplit(":", 1)
        opened = socket.socket()
        opened.bind((host, int(port)))
    opened.listen()
    return opened


def main() -> None:
    end = sys.argv.index("--")
    words = sys.argv[1:end]
    owner = os.getpid()
    if words[0] == "--to-another":
        owner, words = os.getppid(), words[1:]
    names, addresses = zip(*(word.split("=", 1) for word in words))
    # Out of the way of the places where they belong.
    opened = [fcntl.fcntl(listening(address).detach(), fcntl.F_DUPFD_CLOEXEC, 100) for address in addresses]
    for place, descriptor in enumerate(opened, FIRST):
        os.dup2(descriptor, place)
    os.environ.update(LISTEN_PID=str(owner), LISTEN_FDS=str(len(opened)), LISTEN_FDNAMES=":".join(names))
    os.execv(sys.argv[end + 1], sys.argv[end + 1 :])


main()
