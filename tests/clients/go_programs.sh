#!/usr/bin/env bash
# Runs the programs of unchanged go-dqlite on a libdqlite, on loopback alone: go_programs.sh VERSION LIBRARY_DIR INCLUDE_DIR [roles].
# go-dqlite's own scripts (test/dqlite-demo.sh, test/recover.sh and, when asked for, the long test/roles.sh), dqlite-demo whose leader is
# killed, the dqlite shell, and dqlite-benchmark. VERSION is one of v3.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=$1 library=$(realpath "$2") include=$(realpath "$3") roles=${4:-}
module=github.com/canonical/go-dqlite/${version%%.*}

if [ "${GO_PROGRAMS_INSIDE:-}" != yes ]; then
    for tool in go curl python3 ip unshare; do
        command -v "$tool" >/dev/null || { echo "go_programs.sh: $tool is missing." >&2; exit 1; }
    done
    # What needs the module proxy comes first, then a network namespace with nothing but loopback.
    work=$(mktemp -d)
    trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
    source=$(cd "$work" && GOFLAGS=-mod=mod go mod download -json "$module@$version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    cp -r "$source" "$work/go-dqlite"
    chmod -R u+w "$work/go-dqlite"
    mkdir "$work/bin" "$work/tmp"
    export CGO_CFLAGS="-I$include" CGO_LDFLAGS="-L$library" CGO_LDFLAGS_ALLOW="-Wl,-z,now" LD_LIBRARY_PATH="$library" GOFLAGS=-mod=mod
    (cd "$work/go-dqlite" && go build -tags libsqlite3 -o "$work/bin/" ./cmd/...)
    # The scripts look for open ports with nc, of which they use one option.
    printf '%s\n' '#!/bin/bash' 'exec 2>/dev/null' ': <>"/dev/tcp/$2/$3"' >"$work/bin/nc"
    chmod +x "$work/bin/nc"
    export GO_PROGRAMS_INSIDE=yes GO_PROGRAMS_WORK="$work" GOPROXY=off PATH="$work/bin:$PATH" TMPDIR="$work/tmp"
    unshare --net sh -c 'ip link set lo up && exec "$@"' sh "$here/go_programs.sh" "$version" "$library" "$include" "$roles"
    exit
fi

work=$GO_PROGRAMS_WORK
passed=0
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
}
trap cleanup EXIT
pass() {
    passed=$((passed + 1))
    echo "go-dqlite $version, $1: passed"
}
fail() {
    echo "go-dqlite $version, $*" >&2
    tail -n 5 "$work"/*.log >&2
    exit 1
}
within() {
    local seconds=$1
    shift
    for _ in $(seq $((seconds * 5))); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.2
    done
    fail "not within $seconds seconds: $*"
}

# Their scripts, as they are; some print an error and go on.
script() {
    (cd "$work/go-dqlite" && timeout 900 bash -eu "test/$1") >"$work/$1.log" 2>&1 || fail "test/$1 fails"
    grep -q '=> Test successful' "$work/$1.log" || fail "test/$1 does not end"
    ! grep -q '^Error' "$work/$1.log" || fail "test/$1: $(grep '^Error' "$work/$1.log")"
    pass "its own test/$1"
}
script dqlite-demo.sh
script recover.sh
[ "$roles" != roles ] || script roles.sh

start() {
    local number=$1
    shift
    dqlite-demo --api "127.0.0.1:800$number" --db "127.0.0.1:900$number" --dir "$work/$number" "$@" >"$work/demo-$number.log" 2>&1 &
    pids[number]=$!
}
put() { curl -sS --max-time 10 -X PUT -d "$2" "http://127.0.0.1:800$1/$3"; }
get() { curl -sS --max-time 10 "http://127.0.0.1:800$1/$2"; }
holds() { [ "$(get "$1" "$2")" = "$3" ]; }
all=127.0.0.1:9001,127.0.0.1:9002,127.0.0.1:9003
shell() { dqlite --servers "$all" demo "$@"; }
voters() { [ "$(shell .cluster | grep -c voter)" -eq "$1" ]; }

start 1
within 30 put 1 one first
start 2 --join 127.0.0.1:9001
start 3 --join 127.0.0.1:9001
for node in 1 2 3; do within 60 holds "$node" first one; done
within 60 voters 3
leader=$(shell .leader)
number=${leader##*:900}
other=$((number % 3 + 1))
kill -9 "${pids[number]}"
wait "${pids[number]}" 2>/dev/null || true
within 60 put "$other" two second
for node in 1 2 3; do
    [ "$node" = "$number" ] || within 60 holds "$node" second two
    [ "$node" = "$number" ] || within 60 holds "$node" first one
done
start "$number" --join "127.0.0.1:900$other"
within 60 holds "$number" second two
pass "dqlite-demo, three nodes, the leader killed and back"

# The first line has the names; each value has a tab behind it.
values=$(shell 'SELECT value FROM model ORDER BY key' | tail -n +2 | tr -d '\t')
[ "$values" = "$(printf 'one\ntwo')" ] || fail "the shell reads $values"
shell "INSERT INTO model(key, value) VALUES('third', 'three')" >/dev/null
within 60 holds 1 third three
# Lines from standard input, one of them wrong, as a person types them.
printf '%s\n' 'SELECT 6 * 7 AS answer' 'SELECT missing' '.leader' | shell >"$work/shell.log" 2>&1 || true
grep -q 42 "$work/shell.log" && grep -q 'no such column: missing' "$work/shell.log" && grep -q '127.0.0.1:900' "$work/shell.log" || fail "the shell says $(cat "$work/shell.log")"
within 60 voters 3
target=$(shell .leader)
shell ".describe $target" >/dev/null
shell ".weight $target 5" >/dev/null
shell ".describe $target" | grep -q 5 || fail "the weight of $target: $(shell ".describe $target")"
(cd "$work/tmp" && shell ".dump $target demo" >/dev/null)
rows=$(python3 -c 'import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute("SELECT count(*) FROM model").fetchone()[0])' "$work/tmp/demo")
[ "$rows" = 3 ] || fail "the dump holds $rows rows"
pass "the dqlite shell: SELECT, INSERT, an error, .cluster, .leader, .weight, .describe, .dump"
for node in 1 2 3; do kill "${pids[node]}"; done
for node in 1 2 3; do wait "${pids[node]}" || fail "node $node of dqlite-demo ends with $?"; done

dqlite-benchmark --db 127.0.0.1:9001 --dir "$work/b1" --driver --cluster "$all" --duration 5 --workers 4 --workload kvreadwrite >"$work/benchmark-1.log" 2>&1 &
pids[1]=$!
for node in 2 3; do
    dqlite-benchmark --db "127.0.0.1:900$node" --dir "$work/b$node" --join 127.0.0.1:9001 >"$work/benchmark-$node.log" 2>&1 &
    pids[node]=$!
done
within 90 grep -q 'Benchmark done' "$work/benchmark-1.log"
results=$(find "$work/b1" -type d -name results)
# Each file begins with the counts: n, n_err; the errors are its last lines. What the end of the run cuts off is one, too.
count() { cat "$results"/*-"$1"-* | awk '$1 == "n" { all += $2 } END { print all }'; }
writes=$(count exec) reads=$(count query)
[ "$writes" -gt 0 ] && [ "$reads" -gt 0 ] || fail "dqlite-benchmark: $writes writes, $reads reads"
! grep -Lx errors "$results"/* | grep . || fail "dqlite-benchmark: results without their errors"
failed=$(for file in "$results"/*; do sed '1,/^errors$/d' "$file"; done | grep -v -e '^$' -e 'context deadline exceeded$') &&
    fail "dqlite-benchmark: $failed"
pass "dqlite-benchmark, three nodes, 4 workers, 5 s ($writes writes, $reads reads, none failed but those cut off at its end)"
echo "programs of go-dqlite $version: $passed passed, 0 failed"
