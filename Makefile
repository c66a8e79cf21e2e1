# Everything a developer of Hostler runs. `make` alone says what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

PYTHON := $(CURDIR)/.venv/bin/python

.PHONY: help run test check bench-compare bench-profile bench-waiting-room bench-attacks bench-hostile clean need-cargo need-venv

help:
	@echo "make run            serve the example shop at https://localhost:8443 (Ctrl-C stops it)"
	@echo "make test           all tests: Rust, end to end against gunicorn, and the shop's own"
	@echo "make check          formatting and lints"
	@echo "make bench-compare  side by side with nginx and HAProxy; ARGS=\"--rounds 3 --seconds 2\" and so on, ARGS=--help lists them"
	@echo "make bench-profile  system calls and instructions per request, as ARGS=--help says"
	@echo "make bench-waiting-room  storms on real gunicorn; ARGS=flood, restarts, kills, aborts, memory or full"
	@echo "make bench-attacks  honest clients beside hostile ones; ARGS=attacks, drops or descriptors"
	@echo "make bench-hostile  hostile requests and answers through Hostler, nginx and HAProxy"
	@echo "make clean          remove everything that was built"

run: need-cargo need-venv
	@echo "Building Hostler (release; the first time takes minutes)"
	@cargo build --release --locked --bin hostler
	@exec $(PYTHON) examples/shop/run.py target/release/hostler

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

clean:
	@echo "Removing target, .venv and the shop's run folder"
	@rm -rf target fuzz/target .venv .run examples/shop/run examples/shop/.ipv4.yaml
	@find examples tests benches -name __pycache__ -prune -exec rm -rf {} +

need-cargo:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer (rustup)." >&2; exit 1; }
	@command -v cc >/dev/null || { echo "A C compiler is missing: install one (Debian: gcc libc6-dev)." >&2; exit 1; }

need-venv:
	@tests/python/venv.sh
