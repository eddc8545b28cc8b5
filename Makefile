# Targets: all check fmt-check lint test. What each one needs is in README.md.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

CARGO ?= cargo
# Longest time one run of the tests may take, in seconds: a hang is a failure.
TEST_SECONDS ?= 1500
TIMEOUT := timeout --kill-after=10

.PHONY: all check deps fmt-check lint test

all: deps
	$(CARGO) build --release --lib --package dqlite

check: deps fmt-check lint test

deps:
	@scripts/deps.sh

fmt-check:
	$(CARGO) fmt --all --check

lint: deps
	$(CARGO) clippy --workspace --all-targets -- -D warnings

test: deps
	$(TIMEOUT) $(TEST_SECONDS) $(CARGO) test --workspace --no-run
	$(TIMEOUT) $(TEST_SECONDS) $(CARGO) test --workspace
