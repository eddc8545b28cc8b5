# Targets: all demo check check-upstream check-clients bench bench-go bench-peers trace-read trace-write failover rolls torture-sql torture-sessions torture-slt torture-stops torture-host torture-disks slow-clients vanished-clients mutants fuzz install uninstall, and the parts of check: deps fmt-check lint licences doc test. See README.md.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

CARGO ?= cargo
CC ?= cc
prefix ?= /usr/local
libdir ?= $(prefix)/lib
includedir ?= $(prefix)/include
DESTDIR ?=
# Longest time one run of the tests may take, in seconds: a hang is a failure.
TEST_SECONDS ?= 2400
TIMEOUT := timeout --kill-after=10
# The system's SQLite if its development package is there, else one that is compiled in.
FEATURES := $(shell pkg-config --exists sqlite3 2>/dev/null || echo --features bundled)
# What tests are built from, always at once, the shared object too: packages built one by one have other features, and each dependency would be compiled
# twice. The simulator has a profile of its own.
TESTED := --workspace --exclude dqlite-sim
BUILT := target/release
FOLDER := target/lib

.PHONY: all demo check check-upstream bench failover rolls sim fuzz install uninstall deps fmt-check lint licences doc test

all: deps
	$(CARGO) build --release --lib --package dqlite $(FEATURES)
	mkdir -p $(FOLDER)
	install -m 644 $(BUILT)/libdqlite.so $(FOLDER)/libdqlite.so.0.0.1
	ln -sfn libdqlite.so.0.0.1 $(FOLDER)/libdqlite.so.0
	ln -sfn libdqlite.so.0.0.1 $(FOLDER)/libdqlite.so
	scripts/make-archive $(BUILT)/libdqlite.a $(FOLDER)/libdqlite.a
	scripts/make-pc $(prefix) $(libdir) $(includedir) >$(FOLDER)/dqlite.pc

target/dqlite-node: tests-c/dqlite-node.c include/dqlite.h all
	$(CC) -std=c11 -Wall -Wextra -Werror -O2 -Iinclude $< -o $@ -L$(FOLDER) -ldqlite -ldl

# The demo's own program; CI names the one that `make check` has built.
export DEMO ?= $(CARGO) run --quiet --release --package dqlite-testing $(if $(FEATURES),--features dqlite/bundled) --bin demo --
demo: target/dqlite-node
	$(DEMO) target/dqlite-node $(FOLDER)

# UPSTREAM: a folder of tests/upstream/fetch.sh, which fetches what is missing there.
UPSTREAM ?= target/upstream
BENCH_ROUNDS ?= 5
# Size of the large database, and in how many rounds it is made; it takes minutes.
BENCH_LARGE ?= 1024
BENCH_LARGE_ROUNDS ?= 1
BENCH_OPTIONS ?=
bench: target/dqlite-node
	tests/upstream/fetch.sh $(UPSTREAM) bookworm sid
	$(CC) -std=c11 -Wall -Wextra -Werror -O2 tests-c/floor.c -o target/floor -lsqlite3
	$(CARGO) run --quiet --release --package dqlite-testing --bin bench -- target/dqlite-node target/bench "this library=$(FOLDER)" \
	    --upstream $(UPSTREAM) --floor target/floor --rounds $(BENCH_ROUNDS) --large $(BENCH_LARGE) --large-rounds $(BENCH_LARGE_ROUNDS) $(BENCH_OPTIONS)
	scripts/plot-bench target/bench/bench.csv target/bench/inserts.png

# A second, independent client: go-dqlite's own dqlite-benchmark, three nodes, this library and upstream's that go-dqlite v3 takes. Needs Go.
# GO_OPTIONS, for example: --mode single --workload kvwrite --workers 16.
.PHONY: bench-go bench-peers
BENCH_PEER_ROUNDS ?= 3
GO_OPTIONS ?=
bench-go: all
	tests/upstream/fetch.sh $(UPSTREAM) trixie
	tests/upstream/fetch.sh $(UPSTREAM) sid || echo "Debian unstable's libdqlite0 could not be had: its version is not measured."
	tests/bench/go_benchmark.py target/bench include $(FOLDER) --upstream $(UPSTREAM) --rounds $(BENCH_PEER_ROUNDS) $(GO_OPTIONS)

# The same inserts beside rqlite and etcd, which are built from the Go module proxy. Needs Go. PEERS_OPTIONS, for example: --nodes 3 --clients 64.
PEERS_OPTIONS ?=
bench-peers: target/dqlite-node
	tests/bench/peers.py target/bench target/dqlite-node $(FOLDER) --rounds $(BENCH_PEER_ROUNDS) $(PEERS_OPTIONS)

# Where the time of a lone point read and of a lone insert goes, hop by hop, on one and on three nodes: tables and pictures in target/bench. Needs perf, and root.
.PHONY: trace-read trace-write
trace-read: TRACED := point read, 1 clients
trace-write: TRACED := insert 1 KiB, 1 clients
trace-read trace-write: target/dqlite-node
	$(CARGO) build --quiet --release --package dqlite-testing --bin bench
	for nodes in 1 3; do scripts/trace-hops target/release/bench target/dqlite-node $(FOLDER) target/bench "$(TRACED)" $$nodes; done

# Time without writes when the leader of three nodes is killed, KILLS times for each library, and rows lost (there must be none).
KILLS ?= 20
failover: target/dqlite-node
	tests/upstream/fetch.sh $(UPSTREAM)
	$(CARGO) run --quiet --release --package dqlite-testing --bin failover -- target/dqlite-node this=$(FOLDER) \
	    $$(for root in $(UPSTREAM)/*/.complete; do root=$$(dirname $$root); echo $$(basename $$root)=$$root; done) --kills $(KILLS)

# Clusters of each of upstream's versions, replaced node by node by this library and back under writers, ROLLS times, beside the same roll to upstream itself:
# the longest time without writes, and rows lost (there must be none). Four minutes or more for each; ROLLS_OPTIONS='--latency-ms N' for other timers.
ROLLS ?= 20
ROLLS_OPTIONS ?=
rolls: target/dqlite-node
	tests/upstream/fetch.sh $(UPSTREAM) bookworm trixie
	tests/upstream/fetch.sh $(UPSTREAM) sid || echo "Debian unstable's libdqlite0 could not be had: its version is not rolled."
	$(CARGO) run --quiet --release --package dqlite-testing --bin rolls -- target/dqlite-node $(FOLDER) \
	    $$(for root in $(UPSTREAM)/*/.complete; do root=$$(dirname $$root); echo $$(basename $$root)=$$root; done) --rolls $(ROLLS) $(ROLLS_OPTIONS)

# Simulated histories of whole clusters, from SEED on; with models of upstream's nodes in every cluster; of clusters that strangers and forgers besiege;
# of clusters whose disks go bad.
# A seed replays exactly: target/sim/histories SEED 1, with RUST_LOG.
SEED ?= 1
HISTORIES ?= 10000
# With this flag tokio's own random numbers have a seed.
SIM := RUSTFLAGS="--cfg tokio_unstable"
SIM_PACKAGE := --profile sim --package dqlite-sim
# There are no examples; with them dependencies have the features that tests are built with.
SIM_BINS := --bins --examples
.PHONY: sim-mixed sim-siege sim-disks
sim-disks: export DQLITE_SIM_DISKS := 1
sim-mixed: export DQLITE_SIM_MIXED := 1
sim-siege: export DQLITE_SIM_SIEGE := 1
sim sim-mixed sim-siege sim-disks:
	$(SIM) $(CARGO) build --quiet $(SIM_PACKAGE) $(SIM_BINS)
	target/sim/histories $(SEED) $(HISTORIES)

# The machine of sessions in its short form: some histories, and planted faults that must be found.
.PHONY: sim-sessions sim-tests
sim-sessions:
	$(SIM) $(TIMEOUT) $(TEST_SECONDS) $(CARGO) test $(SIM_PACKAGE) --test sessions -- --nocapture

# All tests of the simulator, a part of `make test`.
sim-tests:
	$(SIM) $(TIMEOUT) $(TEST_SECONDS) $(CARGO) test $(SIM_PACKAGE) -- --show-output

# What CI runs of the simulator besides.
.PHONY: sim-short
sim-short:
	$(MAKE) sim HISTORIES=600
	$(MAKE) sim-mixed HISTORIES=300
	$(MAKE) sim-disks HISTORIES=200

# Both machines that explore what clients may do: simulated sessions, and SQL beside plain SQLite. About an hour.
.PHONY: torture-sql
torture-sql: torture-sessions torture-slt

# The machine of sessions: simulated clients that do anything the client protocol allows, at random and by seed (docs/testing.md). A seed replays exactly:
# target/sim/sessions SEED 1. Half of the histories with SQLite as it comes, half in its single-thread mode;
# then faults are planted, and it counts those that are found.
.PHONY: torture-sessions
SESSIONS ?= 10000
torture-sessions:
	$(SIM) $(CARGO) build --quiet $(SIM_PACKAGE) $(SIM_BINS)
	target/sim/sessions $(SEED) $$(($(SESSIONS) / 2))
	target/sim/sessions --single-thread $$(($(SEED) + $(SESSIONS) / 2)) $$(($(SESSIONS) / 4)) & other=$$!; \
	    target/sim/sessions --single-thread $$(($(SEED) + $(SESSIONS) * 3 / 4)) $$(($(SESSIONS) / 4)) && wait $$other
	target/sim/sessions --plants 400

# Against upstream's real libraries, which are fetched from Debian's archive; this library as it is installed, and the tests that `make test` has built.
UPSTREAM_TESTS := DQLITE_LIBRARY=$(abspath $(FOLDER)/libdqlite.so) UPSTREAM=$(abspath $(UPSTREAM)) $(TIMEOUT) $(TEST_SECONDS) \
    $(CARGO) test $(TESTED)
check-upstream: target/dqlite-node
	tests/upstream/fetch.sh $(UPSTREAM) bookworm trixie
	tests/upstream/fetch.sh $(UPSTREAM) sid || echo "Debian unstable's libdqlite0 could not be had: its version is not tested."
	$(UPSTREAM_TESTS) --test upstream_directories --test upstream_programs --test upstream_recovery --test servers --test contention --test deletion --test c_client \
	    --test large_transactions -- --ignored --nocapture
	$(UPSTREAM_TESTS) --test upstream_clusters --test upstream_roles --test upstream_rolls -- --ignored --nocapture --test-threads 4

# A database of DISK_MIB, and an index, in nodes of 512 MiB, page cache counted: as root, or where this user may make control groups. With 1850 the database has
# 2000 MiB, which is vacuumed in one entry; with 2048 that is refused. Takes half an hour.
.PHONY: disk-mode
DISK_MIB ?= 1850
disk-mode:
	$(CARGO) build --release --lib --package dqlite
	DQLITE_LIBRARY=$(abspath target/release/libdqlite.so) DQLITE_TEST_DISK_MIB=$(DISK_MIB) DQLITE_TEST_LIMIT_MIB=512 \
	    $(CARGO) test --package dqlite-testing --test disk_mode -- --nocapture

# Clients that others wrote, unchanged, on loopback alone: docs/clients.md. Needs Go, and Python 3.13. Takes about half an hour; check-clients-short about
# three minutes: go-dqlite v3 in one mode and three packages, its programs, the clients from PyPI.
.PHONY: check-clients check-clients-short
CLIENTS_SHORT := --version v3.0.4 --mode unset --package client --package driver --package internal/bindings
check-clients-short: GO_SUITES := $(CLIENTS_SHORT)
check-clients check-clients-short: target/dqlite-node
	tests/upstream/fetch.sh $(UPSTREAM) sid || tests/upstream/fetch.sh $(UPSTREAM) trixie
	tests/clients/go_suites.py include $(FOLDER) $(GO_SUITES) --logs target/clients/logs \
	    --upstream "$$(dirname "$$(ls $(UPSTREAM)/*/.complete | sort --version-sort | tail -n 1)")"
	tests/clients/go_programs.sh v3.0.4 $(FOLDER) include
	tests/clients/python_clients.sh target/dqlite-node $(FOLDER) target/clients/python

# A node is stopped in good order under load, again and again, in both modes of SQLite: every directory must start again with every acknowledged row.
.PHONY: torture-stops
STOPS ?= 1000
torture-stops: deps
	$(CARGO) build --release --lib --package dqlite $(FEATURES)
	DQLITE_LIBRARY=$(abspath target/release/libdqlite.so) DQLITE_STOP_ROUNDS=$(STOPS) \
	    $(CARGO) test --package dqlite-testing --test stops -- --nocapture

# A node's host: every system call of a node's life fails, returns less or is interrupted, one at a time, HOST_FAILURES times; HOST_LIVES lives one after
# the other; HOST_NODES nodes on eight threads with HOST_CALLS calls at random, plain and built for AddressSanitizer and ThreadSanitizer; a life on every file
# system that the machine has (as root). Half an hour.
.PHONY: torture-host
HOST_FAILURES ?= 3000
HOST_WORKERS ?= 4
HOST_LIVES ?= 1000
HOST_NODES ?= 200
HOST_CALLS ?= 4000
HOST_FOLDER := target/torture-host
torture-host: all
	rm -rf $(HOST_FOLDER); mkdir -p $(HOST_FOLDER)/work
	for build in plain= address=-fsanitize=address,undefined thread=-fsanitize=thread; do \
	    $(CC) -std=c11 -rdynamic -Wall -Wextra -Werror -O1 -g $${build#*=} -Iinclude tests-c/crowd.c -o $(HOST_FOLDER)/crowd-$${build%%=*} \
	        -L$(FOLDER) -Wl,-rpath,$(abspath $(FOLDER)) -ldqlite -lpthread; done
	$(CC) -std=gnu11 -Wall -Wextra -Werror -O1 -g -Iinclude tests-c/torture-host.c -o $(HOST_FOLDER)/torture-host \
	    -L$(FOLDER) -Wl,-rpath,$(abspath $(FOLDER)) -ldqlite -lpthread
	$(CC) -std=c11 -rdynamic -Wall -Wextra -Werror -O1 -g -Iinclude tests-c/guest.c -o $(HOST_FOLDER)/guest \
	    -L$(FOLDER) -Wl,-rpath,$(abspath $(FOLDER)) -ldqlite -ldl -lpthread
	cd $(HOST_FOLDER)/work; ../guest all_descriptors_closed one_descriptor_closed runtime_descriptor_closed small_stack >../guest.seen; cd - >/dev/null; \
	    diff tests-c/guest-optimized.expected $(HOST_FOLDER)/guest.seen
	$(CC) -std=c11 -rdynamic -Wall -Wextra -Werror -O1 -g -Iinclude tests-c/odd-hosts.c -o $(HOST_FOLDER)/odd-hosts \
	    -L$(FOLDER) -Wl,-rpath,$(abspath $(FOLDER)) -ldqlite -ldl -lpthread
	cd $(HOST_FOLDER)/work; ../odd-hosts closed_from_3_while_running closed_from_3_beside_a_stop >../odd-hosts.seen; cd - >/dev/null; \
	    diff tests-c/odd-hosts-optimized.expected $(HOST_FOLDER)/odd-hosts.seen
	for build in plain address thread; do \
	    cd $(abspath $(HOST_FOLDER))/work; rm -rf -- *; \
	    TSAN_OPTIONS=ignore_noninstrumented_modules=1 ../crowd-$$build lives $(HOST_LIVES); rm -rf -- *; \
	    TSAN_OPTIONS=ignore_noninstrumented_modules=1 ../crowd-$$build calls $(HOST_NODES) 8 $(HOST_CALLS) $(SEED); done
	$(HOST_FOLDER)/torture-host $(HOST_FOLDER)/lives --failures $(HOST_FAILURES) --workers $(HOST_WORKERS)
	$(TIMEOUT) $(TEST_SECONDS) $(CARGO) test $(TESTED) --test c_programs valgrind -- --ignored
	DQLITE_TEST_FILE_SYSTEMS=all DQLITE_LIBRARY=$(abspath $(FOLDER)/libdqlite.so) $(TIMEOUT) $(TEST_SECONDS) $(CARGO) test $(TESTED) --test file_systems -- --nocapture

# Three nodes under 16 writers, whose disks are full, read-only, fail, are slow or hang: the leader's, a follower's, two followers', all for a while. DISK_RUNS
# of each, beside upstream's newest if it can be had; about 7 minutes for each run and library. As root, with strace. docs/testing.md says what fails.
# DISK_OPTIONS, for example: --kinds full,hang --roles leader.
.PHONY: torture-disks
DISK_RUNS ?= 20
DISK_OPTIONS ?=
torture-disks: target/dqlite-node
	tests/upstream/fetch.sh $(UPSTREAM) sid || echo "Debian unstable's libdqlite0 could not be had: this library is measured alone."
	$(CARGO) build --quiet --release --package dqlite-testing $(if $(FEATURES),--features dqlite/bundled) --bin bad_disks
	newest=$$(ls -d $(UPSTREAM)/1.18.[2-9]*/.complete 2>/dev/null | sort --version-sort | tail -n 1); \
	    target/release/bad_disks target/dqlite-node this=$(FOLDER) $${newest:+upstream=$$(dirname $$newest)} --runs $(DISK_RUNS) $(DISK_OPTIONS)

# Mutation testing of the folders in .cargo/mutants.toml: docs/testing.md. MUTANTS_OPTIONS, for example: src/vfs/, or --rest for what
# the last run has left. Fails on a survivor that testdata/mutants.txt does not name. An hour or more.
.PHONY: mutants
CARGO_MUTANTS_VERSION := 26.2.0
CARGO_MUTANTS := target/mutants/tool-$(CARGO_MUTANTS_VERSION)
MUTANTS_OPTIONS ?=
mutants: deps
	test -x $(CARGO_MUTANTS)/bin/cargo-mutants || $(CARGO) install cargo-mutants --version $(CARGO_MUTANTS_VERSION) --locked --root $(CARGO_MUTANTS)
	nice -n 19 scripts/mutants.py --tool $(CARGO_MUTANTS)/bin/cargo-mutants $(MUTANTS_OPTIONS)

# Needs cargo-fuzz and a nightly toolchain; FUZZ_SECONDS for each decoder.
FUZZ_SECONDS ?= 600
fuzz:
	for target in $$(ls fuzz/fuzz_targets | sed 's/\.rs//'); do \
	    $(CARGO) +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024; \
	done

check: deps fmt-check lint licences doc test

deps:
	@scripts/deps.sh

fmt-check:
	$(CARGO) fmt --all --check

lint: deps
	$(CARGO) clippy --workspace --all-targets -- -D warnings

licences:
	scripts/licences.sh

# There are no examples; with them dependencies have the features that `lint` has checked.
doc: deps
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items --workspace --lib --examples

test: deps
	$(TIMEOUT) $(TEST_SECONDS) $(CARGO) build $(TESTED) --all-targets
	TESTED="$(TESTED)" scripts/run-tests $(TIMEOUT) $(TEST_SECONDS) $(CARGO)
	$(TIMEOUT) $(TEST_SECONDS) $(CARGO) test $(TESTED) --doc

install: all
	install -d $(DESTDIR)$(libdir)/pkgconfig $(DESTDIR)$(includedir)
	install -m 644 $(FOLDER)/libdqlite.so.0.0.1 $(DESTDIR)$(libdir)/libdqlite.so.0.0.1
	ln -sfn libdqlite.so.0.0.1 $(DESTDIR)$(libdir)/libdqlite.so.0
	ln -sfn libdqlite.so.0.0.1 $(DESTDIR)$(libdir)/libdqlite.so
	install -m 644 $(FOLDER)/libdqlite.a $(DESTDIR)$(libdir)/libdqlite.a
	install -m 644 include/dqlite.h $(DESTDIR)$(includedir)/dqlite.h
	scripts/make-pc $(prefix) $(libdir) $(includedir) >$(DESTDIR)$(libdir)/pkgconfig/dqlite.pc

uninstall:
	rm -f $(DESTDIR)$(libdir)/libdqlite.so.0.0.1 $(DESTDIR)$(libdir)/libdqlite.so.0 $(DESTDIR)$(libdir)/libdqlite.so
	rm -f $(DESTDIR)$(libdir)/libdqlite.a $(DESTDIR)$(includedir)/dqlite.h $(DESTDIR)$(libdir)/pkgconfig/dqlite.pc

# Packages: docs/replace-libdqlite.md.
.PHONY: deb sbom check-musl check-packages check-architectures

# libdqlite0 and libdqlite-dev for Debian 12 and 13, into target/deb.
deb: deps
	scripts/deb target/deb

# Debian's package replaced and put back in clean roots of Debian 13 and 12, and all that is promised of the packages: docs/packages.md. As root, with
# apt; it makes four release builds. PACKAGES keeps roots and downloads, STEPS picks some of the steps.
PACKAGES ?= target/packages
STEPS ?=
check-packages: deps
	UPSTREAM=$(UPSTREAM) scripts/check-packages $(PACKAGES) $(STEPS)

# The library as arm64 and s390x (big-endian) under qemu, and clusters of such nodes and this machine's.
check-architectures: all
	scripts/check-architectures

# What the library is compiled from, as CycloneDX.
sbom:
	scripts/sbom >target/sbom.cdx.json
	@echo target/sbom.cdx.json

# Static programs with musl: a node, and the demo.
check-musl: deps
	scripts/check-musl

# SQLite's own kind of tests: SLT_RECORDS records of sqllogictest scripts on a node, beside plain SQLite; the project's scripts, and generated ones from SLT_SEED
# on. In both modes of SQLite. `target/release/slt --print SEED` shows a generated script.
.PHONY: torture-slt
SLT_RECORDS ?= 200000
SLT_SEED ?= 1
torture-slt: target/dqlite-node
	$(CARGO) build --quiet --release --package dqlite-testing $(if $(FEATURES),--features dqlite/bundled) --bin slt
	target/release/slt target/dqlite-node $(FOLDER) --records $(SLT_RECORDS) --seed $(SLT_SEED) testing/slt/*.slt
	target/release/slt target/dqlite-node $(FOLDER) --records $$(($(SLT_RECORDS) / 4)) --seed $$(($(SLT_SEED) + 1000000)) --node-option --single-thread testing/slt/*.slt

# Clients whose machine vanishes without a word: how long the node keeps what they hold. Five minutes.
.PHONY: vanished-clients
vanished-clients: deps
	$(TIMEOUT) $(TEST_SECONDS) $(CARGO) test --package dqlite --lib the_system_notices -- --include-ignored --nocapture

# Clients that read a byte a second beside writers, and ten thousand connections that come and go: rates and memory. Needs 10,100 open files in
# each process. SLOW_OPTIONS, for example: --connections 4000.
.PHONY: slow-clients
SLOW_OPTIONS ?=
slow-clients: target/dqlite-node
	$(CARGO) build --quiet --release --package dqlite-testing $(if $(FEATURES),--features dqlite/bundled) --bin slow_clients
	ulimit -n $$(ulimit -Hn); target/release/slow_clients target/dqlite-node $(FOLDER) $(SLOW_OPTIONS)
