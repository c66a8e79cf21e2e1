#!/usr/bin/env python3
"""
Runs the chat: gunicorn with two sync workers on a unix socket, and Hostler in front of it.

    .venv/bin/python examples/chat/run.py target/release/hostler
"""

import sys
from pathlib import Path

CHAT = Path(__file__).resolve().parent
sys.path.insert(0, str(CHAT.parent))

from pair import ADDRESS, Example, main  # noqa: E402

WELCOME = f"""
The chat is open: {ADDRESS}   (twice, in two windows)

Its certificate comes from Hostler's local CA; the log above says where the CA's root is. Import it into your browser, or
be warned by it.

  # Say something to everybody, from outside
  target/release/hostler publish -c examples/chat/hostler.yaml chat 'The inn is open.'

Ctrl-C stops both.
"""

if __name__ == "__main__":
    main(Example(CHAT, "chat:app", 2, WELCOME))
