#!/bin/bash
# Every crate's licence is one that deny.toml allows, and every crate is from crates.io. With cargo-deny it asks that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if command -v cargo-deny >/dev/null; then
    exec cargo deny check licenses bans sources
fi
echo "cargo-deny is not installed: licences and sources are read from cargo metadata."
cargo metadata --format-version 1 --locked | python3 -c '
import json, re, sys
allowed = set(re.findall(r"\"([^\"]+)\"", re.search(r"allow = \[(.*?)\]", open("deny.toml").read(), re.S).group(1)))
bad = 0
packages = json.load(sys.stdin)["packages"]
for package in packages:
    licence = package.get("license") or ""
    choices = [part.strip(" ()") for part in re.split(r" OR |/", licence)]
    fine = any(all(one.strip(" ()") in allowed for one in choice.split(" AND ")) for choice in choices)
    source = package["source"]
    if not fine or (source and not source.startswith("registry+https://github.com/rust-lang/crates.io-index")):
        print(package["name"], package["version"], licence or "no licence", source)
        bad += 1
print(len(packages), "crates,", bad, "refused")
sys.exit(bad != 0)
'
