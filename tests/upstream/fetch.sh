#!/bin/bash
# Fetches upstream's libdqlite from Debian's archive, signatures checked by apt, and unpacks it with every library that it
# needs (glibc too) into DIR/VERSION. Nothing is installed. Usage: fetch.sh DIR [bookworm|trixie|sid]...
# The hashes that were seen are in packages.txt beside this script: a pinned package with another hash is refused.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(mkdir -p "$1" && cd "$1" && pwd)"
shift
suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(bookworm trixie sid)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
architecture="$(dpkg --print-architecture)"

for suite in "${suites[@]}"; do
    apt="$root/.apt/$suite"
    mkdir -p "$apt"/{lists/partial,cache/archives/partial,etc/preferences.d,etc/apt.conf.d,etc/sources.d} && : >"$apt/status"
    echo "deb [signed-by=$keyring arch=$architecture] http://deb.debian.org/debian $suite main" >"$apt/sources.list"
    options=(-qq -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache" -o Dir::State::status="$apt/status"
        -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts="$apt/etc/sources.d" -o Dir::Etc::parts="$apt/etc/apt.conf.d" -o Dir::Etc::preferencesparts="$apt/etc/preferences.d"
        -o APT::Get::List-Cleanup=0 -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update </dev/null
    # With an empty status file apt names everything, down to libc6.
    wanted=$(apt-get "${options[@]}" --no-install-recommends --simulate install libdqlite0 libdqlite-dev sqlite3 </dev/null |
        sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*/\1=\2/p' | sed 's/:'"$architecture"'=/=/')
    keep=()
    for package in $wanted; do
        case "${package%%=*}" in
        lib*-dev | linux-libc-dev | gcc-* | libgcc-*-base | debconf* | perl* | tzdata) [ "${package%%=*}" = libdqlite-dev ] && keep+=("$package") ;;
        *) keep+=("$package") ;;
        esac
    done
    version=""
    for package in "${keep[@]}"; do
        [ "${package%%=*}" = libdqlite0 ] && version="${package#*=}"
    done
    [ -n "$version" ] || { echo "fetch.sh: $suite has no libdqlite0" >&2; exit 1; }
    target="$root/${version%%-*}"
    [ -e "$target/.complete" ] && { echo "$suite ${version%%-*} $target (already there)"; continue; }
    (cd "$apt" && apt-get "${options[@]}" download "${keep[@]}" </dev/null)
    rm -rf "$target" && mkdir -p "$target"
    for file in "$apt"/*.deb; do
        name="$(basename "$file")"
        sum="$(sha256sum "$file" | cut -d' ' -f1)"
        case "$name" in
        libdqlite* | libraft*)
            pinned="$(sed -n "s/^\([0-9a-f]\{64\}\)  ${name//+/\\+}\$/\1/p" "$here/packages.txt" 2>/dev/null || true)"
            if [ -n "$pinned" ] && [ "$pinned" != "$sum" ]; then
                echo "fetch.sh: $name has SHA-256 $sum, packages.txt says $pinned" >&2
                exit 1
            fi
            [ -n "$pinned" ] || echo "fetch.sh: $name is newer than packages.txt ($sum)" >&2
            ;;
        esac
        dpkg-deb --extract "$file" "$target"
        echo "$sum  $name" >>"$target/packages.txt"
        rm -f "$file"
    done
    : >"$target/.complete"
    echo "$suite ${version%%-*} $target"
done
