#!/bin/sh
# Make .venv beside pyproject.toml and install the project into it (editable).
#
#   sh tools/venv.sh run    what the `mesh` command needs
#   sh tools/venv.sh dev    that, every extra, and the tools for tests, types and lint
#   sh tools/venv.sh bench  the first, and the systems that the benchmarks compare with, as far as they install
#
# Needs Python 3.11 or later and a way to reach a package index; nothing else.
# PYTHON=… chooses the interpreter, VENV=… another folder. Safe to call again.
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
what=${1:-run}

fail() { echo "zeromesh: $*" >&2; exit 1; }

case $what in
run) requirement=. ;;
dev) requirement='.[all,dev]' ;;
bench) requirement=. ;;
*) fail "tools/venv.sh takes 'run', 'dev' or 'bench', not '$what'" ;;
esac

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        new_enough "$PYTHON" || fail "PYTHON=$PYTHON is not Python 3.11 or later"
        echo "$PYTHON"
        return
    fi
    # The usual name first: it is the one most likely to come with venv and pip.
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if command -v "$candidate" >/dev/null 2>&1 && new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    found=$(python3 --version 2>/dev/null || echo "no python3")
    fail "Python 3.11 or later is needed, found $found (set PYTHON=… to name another)"
}

make_venv() {
    python=$(find_python) || exit 1
    echo "zeromesh: making $venv with $("$python" --version)"
    # Some distributions ship Python without ensurepip; a pip of the system can fill in for it.
    "$python" -m venv --clear "$venv" >/dev/null 2>&1 && return
    "$python" -m venv --clear --without-pip "$venv" 2>/dev/null &&
        "$python" -m pip --quiet --python "$venv/bin/python" install pip 2>/dev/null && return
    rm -rf "$venv"
    fail "$("$python" --version) cannot make a virtual environment: install its venv package (Debian: python3-venv)"
}

if [ -e "$venv/bin/python" ] || [ -L "$venv/bin/python" ]; then
    if ! new_enough "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        echo "zeromesh: $venv is broken or older than Python 3.11"
        make_venv
    fi
elif [ -e "$venv" ] && [ -n "$(ls -A "$venv")" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
    fail "$venv exists and is not a virtual environment: move it away or set VENV=…"
else
    make_venv
fi

echo "zeromesh: installing ($what) into $venv …"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --editable "$requirement" ||
    fail "installing failed; the lines above say why (no network?)"

if [ "$what" = bench ]; then
    # A system that has no wheel for this Python is left out, and the benchmarks say so.
    "$venv/bin/python" -c '
import tomllib
for requirement in tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["bench"]:
    print(requirement)' | while read -r peer; do
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --only-binary :all: "$peer" ||
            echo "zeromesh: $peer does not install here: the benchmarks leave it out" >&2
    done
fi

# An installer would leave bytecode; an editable installation compiles at the first start of each module.
"$venv/bin/python" -m compileall -q mesh bridges || true

# The stamps tell make that the environment is as new as pyproject.toml.
touch "$venv/.installed-run" "$venv/.installed-$what"
