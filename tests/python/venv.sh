#!/usr/bin/env bash
# Makes .venv as requirements.txt of every example and the one beside this file say, if it is missing or older than
# they are. Prints nothing when all is well.
set -euo pipefail
cd "$(dirname "$0")/../.."

requirements=(examples/*/requirements.txt tests/python/requirements.txt)
stamp=.venv/installed.txt # a copy of what was installed, written last

# The copy equal and the interpreter still there (it goes away when the system's Python is replaced).
if cat "${requirements[@]}" | cmp -s - "$stamp" && .venv/bin/python -c 'import django, gunicorn' 2>/dev/null; then
    exit 0
fi

fail() {
    echo "$*" >&2
    exit 1
}

command -v python3 >/dev/null || fail "python3 is missing: install Python 3.11 or newer (Debian: python3 python3-venv)."
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$(python3 --version) is too old: the example needs Python 3.11 or newer."

# Debian ships venv without the part that puts pip into it.
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
        fail "python3 cannot make virtual environments: install python3-venv (Debian: sudo apt-get install python3-venv)."
    echo "Installing python3-venv"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends python3-venv
    python3 -c 'import ensurepip, venv' ||
        fail "python3-venv is installed, but $(command -v python3) is not Debian's: make its ensurepip work, or remove it from PATH."
fi

echo "Making .venv from ${requirements[*]}"
rm -rf .venv
python3 -m venv .venv
# The files name the indirect requirements too, so nothing else may come along; `check` says if one is missing.
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "${requirements[@]/#/--requirement=}"
report=$(.venv/bin/python -m pip check --disable-pip-version-check) || fail "${requirements[*]}: not complete: $report"
cat "${requirements[@]}" >"$stamp"
