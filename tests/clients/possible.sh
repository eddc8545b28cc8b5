#!/usr/bin/env bash
# Whether this machine can run the clients that others wrote; says what is missing.
set -euo pipefail
missing=()
for tool in go curl python3 ip unshare; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
unshare --net true 2>/dev/null || missing+=("the right to make a network namespace")
python=no
for candidate in python3.13 python3.14 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[34].*/bin/python; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 13))' 2>/dev/null; then python=yes; fi
done
[ "$python" = yes ] || missing+=("Python 3.13 or later")
[ ${#missing[@]} -eq 0 ] && exit 0
(IFS=,; echo "go-dqlite's suites and the clients from PyPI are NOT run: this machine lacks ${missing[*]}.")
exit 1
