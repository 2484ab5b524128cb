#!/bin/sh
# Run a command of an image's build that trusts the build secret `ca` besides the usual authorities.
set -eu
extra=/run/secrets/ca
if [ -f "$extra" ] && grep -q 'BEGIN CERTIFICATE' "$extra"; then
    usual=$(python -c 'from pip._vendor import certifi; print(certifi.where())')
    cat "$usual" "$extra" > /tmp/ca.pem
    export PIP_CERT=/tmp/ca.pem NODE_EXTRA_CA_CERTS="$extra"
fi
exec "$@"
