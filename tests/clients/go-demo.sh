#!/usr/bin/env bash
# Runs go-dqlite's dqlite-demo unchanged, three nodes, against a libdqlite: go-demo.sh VERSION LIBRARY_DIR INCLUDE_DIR.
# Writes through one node, reads through all, kills the leader, writes and reads again.
set -euo pipefail
version=$1 library=$2 include=$3
module=github.com/canonical/go-dqlite/${version%%.*}
work=$(mktemp -d)
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
    chmod -R u+w "$work"
    rm -rf "$work"
}
trap cleanup EXIT
source=$(cd "$work" && GOFLAGS=-mod=mod go mod download -json "$module@$version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
cp -r "$source" "$work/go-dqlite"
chmod -R u+w "$work/go-dqlite"
cd "$work/go-dqlite"
export CGO_CFLAGS="-I$include" CGO_LDFLAGS="-L$library" CGO_LDFLAGS_ALLOW="-Wl,-z,now" LD_LIBRARY_PATH="$library"
go build -tags libsqlite3 -o "$work/demo" ./cmd/dqlite-demo

# All of them on loopback.
start() {
    local number=$1
    shift
    "$work/demo" --api "127.0.0.1:800$number" --db "127.0.0.1:900$number" --dir "$work/$number" "$@" >"$work/$number.log" 2>&1 &
    pids[number]=$!
}
put() { curl -sS --max-time 10 -X PUT -d "$2" "http://127.0.0.1:800$1/$3"; }
get() { curl -sS --max-time 10 "http://127.0.0.1:800$1/$2"; }
within() {
    local seconds=$1
    shift
    for _ in $(seq $((seconds * 5))); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.2
    done
    echo "not within $seconds seconds: $*" >&2
    tail -n 5 "$work"/*.log >&2
    exit 1
}
holds() { [ "$(get "$1" "$2")" = "$3" ]; }

start 1
within 30 put 1 first one
start 2 --join 127.0.0.1:9001
start 3 --join 127.0.0.1:9001
for node in 1 2 3; do within 60 holds "$node" one first; done
echo "three nodes of dqlite-demo hold what was written to one"
# Node 1 made the cluster and leads; the others vote by now.
sleep 5
kill -9 "${pids[1]}"
wait "${pids[1]}" 2>/dev/null || true
within 60 put 2 second two
within 60 holds 3 two second
within 60 holds 3 one first
echo "the leader was killed, the others went on"
start 1 --join 127.0.0.1:9002
within 60 holds 1 two second
echo "it came back and holds what was written meanwhile"
