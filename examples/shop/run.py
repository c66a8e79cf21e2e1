#!/usr/bin/env python3
"""
Runs the shop: gunicorn with four sync workers on a unix socket, and Hostler in front of it.

    .venv/bin/python examples/shop/run.py target/release/hostler
"""

import sys
from pathlib import Path

SHOP = Path(__file__).resolve().parent
sys.path.insert(0, str(SHOP.parent))

from pair import ADDRESS, Example, main  # noqa: E402

WELCOME = f"""
The shop is open: {ADDRESS}

Its certificate comes from Hostler's local CA; the log above says where the CA's root is. Import it into your browser, or
be warned by it; curl needs -k, or --cacert with that file.

  # The request as Django sees it
  curl -k {ADDRESS}/environ
  # Chunks arrive as they are made
  curl -k -N '{ADDRESS}/stream?chunks=5&delay=1'
  # Twelve at once on four workers: eight wait in line
  seq 12 | xargs -P12 -I{{}} curl -ks '{ADDRESS}/slow?seconds=2'
  # A slow upload holds no worker
  curl -k --limit-rate 10k -X POST -T Cargo.lock {ADDRESS}/upload
  # Plain HTTP is sent on to https
  curl -i http://localhost:8080/login

Figures for Prometheus: http://127.0.0.1:9180/metrics
Ctrl-C stops both.
"""

# Into the folder that hostler.yaml serves them from.
COLLECT = ["manage.py", "collectstatic", "--no-input", "--verbosity", "0"]

if __name__ == "__main__":
    main(Example(SHOP, "shop.wsgi", 4, WELCOME, [COLLECT]))
