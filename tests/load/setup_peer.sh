#!/bin/sh
# Make .cache/peers/NAME, a gateway that `make bench` measures beside Antiphon, from its locked requirements.
set -eu
cd "$(dirname "$0")/../.."
name=$1
lock=requirements/peers/$name.txt
home=.cache/peers/$name

stamp=$(cksum <"$lock")
[ "$(cat "$home/.ready" 2>/dev/null || true)" != "$stamp" ] || exit 0

free_mb=$(df -Pm . | awk 'NR == 2 {print $4}')
if [ "$free_mb" -le 1500 ]; then
    printf 'this disk has %s MB free, %s needs up to 1500 MB\n' "$free_mb" "$name" >&2
    exit 1
fi

index=${PIP_INDEX_URL:-$(.venv/bin/python -m pip config get global.index-url 2>/dev/null || true)}
[ -z "$index" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
mkdir -p .cache/peers
.venv/bin/uv venv --quiet --clear --python .venv/bin/python "$home"
.venv/bin/uv pip install --quiet --python "$home/bin/python" --require-hashes -r "$lock"
printf '%s\n' "$stamp" >"$home/.ready"
