#!/bin/bash
# Installs what a build needs and a fresh Debian lacks (as root, with apt), or names it in one sentence. `deps.sh musl` installs what
# `make check-musl` needs besides, where it can: scripts/musl-possible says whether it could.
set -euo pipefail

missing=()
if [ "${1:-}" = musl ]; then
    command -v musl-gcc >/dev/null || missing+=(musl-tools)
    target="$(uname -m)-unknown-linux-musl"
    if command -v rustup >/dev/null && [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
        rustup target add "$target" || echo "rustup could not add $target." >&2
    fi
fi
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v c++ >/dev/null || missing+=(g++)
command -v make >/dev/null || missing+=(make)
command -v python3 >/dev/null || missing+=(python3-minimal)
command -v pkg-config >/dev/null || missing+=(pkg-config)
command -v valgrind >/dev/null || missing+=(valgrind libc6-dbg)
if ! command -v pkg-config >/dev/null || ! pkg-config --exists sqlite3; then
    missing+=(libsqlite3-dev)
fi
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    echo "Installing ${missing[*]}."
    { apt-get update && apt-get install --yes --no-install-recommends "${missing[@]}"; } </dev/null ||
        echo "apt-get could not install ${missing[*]}." >&2
fi
if ! command -v cc >/dev/null; then
    echo "A C compiler is missing: install the packages ${missing[*]}." >&2
    exit 1
fi
if ! command -v pkg-config >/dev/null || ! pkg-config --exists sqlite3; then
    echo "SQLite's headers are missing (libsqlite3-dev, pkg-config): the build compiles its own SQLite." >&2
fi
