#!/usr/bin/env bash
# verify.sh PYTHON: generate everything that is generated into a scratch directory and compare it with what is committed.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
proto/generate.sh "$1" "$scratch"
diff -r -u --exclude=__init__.py --exclude=__pycache__ "$scratch/csi/pb" csi/pb || {
    echo "csi/pb is stale: run 'make proto' and commit the result" >&2
    exit 1
}
echo "generated files are fresh"
