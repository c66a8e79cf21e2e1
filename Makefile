# Everything a developer of Hostler runs. `make` alone says what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

PYTHON := $(CURDIR)/.venv/bin/python

.PHONY: help run chat live test check bench-compare bench-profile bench-waiting-room bench-attacks bench-hostile bench-realtime bench-websocket-restarts bench-cache-killed bench-cache-index clean need-cargo need-venv

help:
	@echo "make run            serve the example shop at https://localhost:8443 (Ctrl-C stops it)"
	@echo "make chat           serve the example of a chat over WebSocket there: Flask on two sync workers"
	@echo "make live           serve the example of a page with live updates there: Django on two sync workers"
	@echo "make test           all tests: Rust, end to end against gunicorn, and the shop's own"
	@echo "make check          formatting and lints"
	@echo "make bench-compare  side by side with nginx, HAProxy and Varnish; ARGS=\"--rounds 3 --seconds 2\" and so on, ARGS=--help lists them"
	@echo "make bench-profile  system calls and instructions per request, as ARGS=--help says"
	@echo "make bench-waiting-room  storms on real gunicorn; ARGS=flood, restarts, kills, aborts, memory or full"
	@echo "make bench-attacks  honest clients beside hostile ones; ARGS=attacks, drops or descriptors"
	@echo "make bench-hostile  hostile requests and answers through Hostler, nginx and HAProxy"
	@echo "make bench-realtime  one publish to thousands of held clients, beside nginx with nchan; ordinary pages beside a thousand that are held"
	@echo "make bench-websocket-restarts  500 WebSockets with traffic while gunicorn's workers are replaced every 3 s; SOCKETS, RESTARTS and EVERY"
	@echo "make bench-cache-killed  kill -9 under load with the cache on disk, every 5 s for 2 minutes: no wrong byte, nothing purged comes back; CRASH_SECONDS"
	@echo "make bench-cache-index  memory for each stored response, and how soon a million files are found after a start; COUNT and FOLDER"
	@echo "make clean          remove everything that was built"

run: EXAMPLE := shop
chat: EXAMPLE := chat
live: EXAMPLE := live
run chat live: need-cargo need-venv
	@echo "Building Hostler (release; the first time takes minutes)"
	@cargo build --release --locked --bin hostler
	@exec $(PYTHON) examples/$(EXAMPLE)/run.py target/release/hostler

test: need-cargo need-venv
	@tests/python/tools.sh
	@echo "Rust tests"
	@HOSTLER_TEST_PYTHON=$(PYTHON) cargo test --locked
	@echo "Tests of the benches"
	@$(PYTHON) -m unittest discover -s benches/compare -t benches/compare
	@$(PYTHON) -m unittest discover -s benches/waiting_room -t benches/waiting_room
	@$(PYTHON) -m unittest discover -s benches/attacks -t benches/attacks
	@$(PYTHON) -m unittest discover -s benches/hostile -t benches/hostile
	@echo "The gunicorn settings in deploy/ load"
	@cd examples/shop && $(PYTHON) -m gunicorn --config ../../deploy/gunicorn.conf.py --check-config shop.wsgi
	@echo "Tests of the example shop"
	@cd examples/shop && $(PYTHON) manage.py test

check: need-cargo
	@echo "Formatting"
	@cargo fmt --check
	@echo "Lints"
	@cargo clippy --locked --all-targets -- -D warnings

bench-compare: need-venv
	@exec $(PYTHON) benches/compare/compare.py $(ARGS)

bench-profile: need-venv
	@exec $(PYTHON) benches/compare/profiles.py $(ARGS)

bench-waiting-room: need-venv
	@exec $(PYTHON) benches/waiting_room/bench.py $(ARGS)

bench-attacks: need-venv
	@exec $(PYTHON) benches/attacks/bench.py $(ARGS)

bench-hostile:
	@command -v python3 >/dev/null || { echo "python3 is missing: install Python 3.11 or newer." >&2; exit 1; }
	@exec python3 benches/hostile/bench.py $(ARGS)

bench-realtime: need-cargo need-venv
	@cargo build --release --locked --bin hostler --example bench-holds
	@$(PYTHON) benches/realtime/bench.py $(ARGS)
	@$(PYTHON) benches/realtime/pages.py

SOCKETS ?= 500
RESTARTS ?= 10
EVERY ?= 3

bench-websocket-restarts: need-cargo need-venv
	@ulimit -n $$(ulimit -H -n) && HOSTLER_TEST_PYTHON=$(PYTHON) HOSTLER_SOCKETS=$(SOCKETS) HOSTLER_RESTARTS=$(RESTARTS) HOSTLER_RESTART_EVERY=$(EVERY) \
		cargo test --release --locked --test e2e -- --nocapture websocket_restarts::no_socket_is_dropped

# As long as this, with a kill every five seconds.
CRASH_SECONDS ?= 120

bench-cache-killed: need-cargo
	@HOSTLER_CACHE_CRASH_SECONDS=$(CRASH_SECONDS) cargo test --release --locked --test e2e -- --nocapture cache_disk::killed

COUNT ?= 1000000
FOLDER ?=

bench-cache-index: need-cargo
	@cargo bench --locked --bench cache_index -- $(COUNT) $(FOLDER)

clean:
	@echo "Removing target, .venv and the examples' run folders"
	@rm -rf target fuzz/target .venv .run examples/*/run examples/*/.ipv4.yaml
	@find examples tests benches -name __pycache__ -prune -exec rm -rf {} +

need-cargo:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer (rustup)." >&2; exit 1; }
	@command -v cc >/dev/null || { echo "A C compiler is missing: install one (Debian: gcc libc6-dev)." >&2; exit 1; }

need-venv:
	@tests/python/venv.sh
