"""A number in a file, shared by all workers."""

import fcntl
import os


def read(path):
    """The number, 0 while there is no file."""
    try:
        return int(path.read_bytes() or 0)
    except FileNotFoundError:
        return 0


def increment(path):
    """Adds one and returns the new number. Two workers that do this at once get two different numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        number = int(os.read(file, 32) or 0) + 1
        # One write over the old number, which is never the longer one: a worker killed here leaves the old or the new.
        os.pwrite(file, str(number).encode(), 0)
        return number
    finally:
        os.close(file)  # releases the lock
