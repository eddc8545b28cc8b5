#!/usr/bin/env bash
# Third-party clients from PyPI, in the versions of python-requirements.txt, against nodes on loopback:
# python_clients.sh DQLITE_NODE LIBRARY_DIR FOLDER. The packages are installed into FOLDER and want Python 3.13.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
program=$1 library=$2 folder=$3
python=""
for candidate in python3.13 python3.14 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[34].*/bin/python; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 13))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || { echo "The clients from PyPI want Python 3.13 or later, and none was found." >&2; exit 1; }
[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$here/python-requirements.txt"
exec unshare --net sh -c 'ip link set lo up && exec "$@"' sh timeout 300 "$folder/bin/python" "$here/python_clients.py" "$program" "$library"
