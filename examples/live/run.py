#!/usr/bin/env python3
"""
Runs the live notes: gunicorn with two sync workers on a unix socket, and Hostler in front of it.

    .venv/bin/python examples/live/run.py target/release/hostler
"""

import sys
from pathlib import Path

LIVE = Path(__file__).resolve().parent
sys.path.insert(0, str(LIVE.parent))

from pair import ADDRESS, Example, main  # noqa: E402

WELCOME = f"""
The notes are open: {ADDRESS}   (twice, in two windows)

Its certificate comes from Hostler's local CA; the log above says where the CA's root is. Import it into your browser, or
be warned by it.

  # The stream of events, held by Hostler and by no worker
  curl -k -N {ADDRESS}/events/

Ctrl-C stops both.
"""

MIGRATE = ["manage.py", "migrate", "--verbosity", "0"]

if __name__ == "__main__":
    main(Example(LIVE, "live.wsgi", 2, WELCOME, [MIGRATE]))
