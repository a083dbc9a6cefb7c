#!/usr/bin/env bash
# Make the virtual environment VENV and install Lineament into it at the pinned versions.
# Usage: [PYTHON=python3] bash setup.sh VENV
set -euo pipefail
venv=${1:?usage: setup.sh VENV}
python=${PYTHON:-python3}

"$python" - <<'PY' || exit 1
import sys
if sys.version_info < (3, 11):
    sys.exit(f"Lineament needs Python 3.11 or newer; this is {sys.version.split()[0]}. Try: make PYTHON=python3.12 ...")
PY
if [ ! -x "$venv/bin/python" ]; then
    "$python" -m venv "$venv" || {
        echo "The virtual environment could not be made. On Debian or Ubuntu: apt-get install python3-venv" >&2
        exit 1
    }
fi
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
# torch first and alone: a build without CUDA that is at hand is taken, and everything else then builds on it.
pip install --quiet --constraint constraints.txt torch
pip install --quiet --constraint constraints.txt --editable '.[dev]'

# opencv-python needs two system libraries that slim images lack.
if ! "$venv/bin/python" -c 'import cv2' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && apt-get install -y -qq libgl1 libglib2.0-0
    fi
    "$venv/bin/python" -c 'import cv2' || {
        echo "OpenCV cannot be imported. On Debian or Ubuntu: apt-get install libgl1 libglib2.0-0" >&2
        exit 1
    }
fi
# The parametric people's first build takes a minute; afterwards they load at once.
"$venv/bin/python" -c 'from models.parametric.person import load_person; load_person()'
[ -d .git ] || { git init -q && git add -A; }  # DVC works inside a git repository
"$venv/bin/dvc" --version >/dev/null
