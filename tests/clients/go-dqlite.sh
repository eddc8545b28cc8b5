#!/usr/bin/env bash
# Runs tests of unchanged go-dqlite against a libdqlite: go-dqlite.sh VERSION LIBRARY_DIR INCLUDE_DIR PACKAGE [go test flags].
# VERSION is a version of github.com/canonical/go-dqlite, such as v3.0.4; the sources come through the Go module proxy.
set -euo pipefail
version=$1 library=$2 include=$3 package=$4
shift 4
major=${version%%.*}
module=github.com/canonical/go-dqlite
if [ "$major" != v1 ]; then module=$module/$major; fi
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
source=$(cd "$work" && GOFLAGS=-mod=mod go mod download -json "$module@$version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
cp -r "$source" "$work/go-dqlite"
chmod -R u+w "$work/go-dqlite"
cd "$work/go-dqlite"
export CGO_CFLAGS="-I$include" CGO_LDFLAGS="-L$library" CGO_LDFLAGS_ALLOW="-Wl,-z,now" LD_LIBRARY_PATH="$library"
# Two tests dial a public address: never run them.
exec go test -count=1 -tags libsqlite3 -skip 'TestConnector_DialTimeout|TestConnector_ContextCanceled' "$@" "$package"
