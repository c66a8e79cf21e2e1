"""The programs that a run needs: names what is missing, builds what is ours, installs nothing."""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from machine import Failure
from peers import PROGRAMS, Peer, find

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = {
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "varnishd": "varnish",
    "varnishstat": "varnish",
    "wrk": "wrk",
    "h2load": "nghttp2-client",
    "openssl": "openssl",
    "strace": "strace",
    "valgrind": "valgrind",
}


@dataclass(frozen=True)
class Binaries:
    """Ours: the origin and the load."""

    origin: Path
    load: Path


def add_options(parser):
    """What all benches of this folder understand."""
    parser.add_argument("--only", action="append", metavar="NAME", help="measure this peer; again for more (default: all)")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        type=named_binary,
        metavar="NAME=BINARY",
        help="measure this binary of Hostler too, under this name; again for more",
    )
    parser.add_argument("--hostler", type=Path, metavar="BINARY", help="measure this binary instead of building it")
    parser.add_argument("--origin", type=Path, metavar="BINARY", help="use this bench-origin instead of building it")
    parser.add_argument("--load", type=Path, metavar="BINARY", help="use this bench-load instead of building it")


def named_binary(text):
    name, _, binary = text.partition("=")
    if not re.fullmatch(r"[\w-]+", name) or not binary or name in PACKAGES or name in PROGRAMS:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=BINARY with a new name")
    return name, Path(binary)


def check_tools(tools):
    """Says all that is missing at once."""
    missing = [tool for tool in sorted(tools) if tool != "gunicorn" and not find(tool)]
    if missing:
        packages = " ".join(dict.fromkeys(PACKAGES[tool] for tool in missing))
        raise Failure(f"Missing: {', '.join(missing)}. Install them (Debian: sudo apt-get install {packages}).")
    if "gunicorn" in tools and not importlib.util.find_spec("gunicorn"):
        raise Failure("Missing: gunicorn. Run this with the Python of .venv, as make does (tests/python/venv.sh makes it).")


def build(options, with_hostler):
    """The release binaries that were not given."""
    targets = [] if options.origin else ["--example", "bench-origin"]
    targets += [] if options.load else ["--example", "bench-load"]
    targets += ["--bin", "hostler"] if with_hostler and not options.hostler else []
    if targets:
        if not shutil.which("cargo"):
            raise Failure("Missing: cargo. Install Rust 1.95 or newer (rustup).")
        print("Building (release; the first time takes minutes)", flush=True)
        if subprocess.run(["cargo", "build", "--release", "--locked", *targets], cwd=ROOT).returncode != 0:
            raise Failure("The build failed.")
    release = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release"
    if with_hostler and not options.hostler:
        options.hostler = release / "hostler"
    examples = release / "examples"
    return Binaries((options.origin or examples / "bench-origin").resolve(), (options.load or examples / "bench-load").resolve())


def all_peers(options):
    """Every peer there could be, in the order of the first round."""
    found = [Peer(name, name, find(PROGRAMS[name][0]) or PROGRAMS[name][0]) for name in ("nginx", "haproxy", "varnish")]
    found.append(Peer("hostler", "hostler", options.hostler.resolve() if options.hostler else Path("hostler")))
    return found + [Peer(name, "hostler", binary.resolve()) for name, binary in options.also]


def wanted_peers(options):
    """All, or those that --only names."""
    found = all_peers(options)
    unknown = set(options.only or []) - {peer.name for peer in found}
    if unknown:
        raise Failure(f"No such peer: {', '.join(sorted(unknown))}. There are: {', '.join(peer.name for peer in found)}.")
    given = [binary for _, binary in options.also] + [each for each in (options.hostler, options.origin, options.load) if each]
    missing = [str(binary) for binary in given if not binary.is_file()]
    if missing:
        raise Failure(f"No such binary: {', '.join(missing)}.")
    return [peer for peer in found if not options.only or peer.name in options.only]
