#!/bin/sh
# Make .cache/clients, the clients of the API that tests run; `make test` runs it when they changed.
set -eu
cd "$(dirname "$0")/../.."

say() { printf '%s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

free_mb=$(df -Pm . | awk 'NR == 2 {print $4}')
[ "$free_mb" -gt 1500 ] || fail "This disk has $free_mb MB free and the tests' clients need 1500 MB: free some space first."

say "setup: installing the clients that tests run (Python 150 MB, Node 470 MB, once)"
# What users have beside openai's client shall not meet the tests' own packages.
index=${PIP_INDEX_URL:-$(.venv/bin/python -m pip config get global.index-url 2>/dev/null || true)}
[ -z "$index" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
mkdir -p .cache/clients/node
.venv/bin/uv venv --quiet --clear --python .venv/bin/python .cache/clients/python &&
    .venv/bin/uv pip install --quiet --python .cache/clients/python/bin/python --require-hashes \
        -r requirements/clients/python.txt &
python=$!

# npm fetches Codex for this platform alone.
cp requirements/clients/package.json requirements/clients/package-lock.json .cache/clients/node/
PATH="$PWD/.venv/bin:$PATH" .venv/bin/npm ci --prefix .cache/clients/node --ignore-scripts \
    --no-audit --no-fund --loglevel=error >/dev/null ||
    fail "Node packages could not be installed: read the lines above, then run it again."
wait "$python" || fail "Python packages could not be installed: read the lines above, then run it again."
say "setup: done"
