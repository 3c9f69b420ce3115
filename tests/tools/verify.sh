#!/usr/bin/env bash
# verify.sh PYTHON: generate everything that is generated into a scratch directory and compare it with what is committed.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
proto/generate.sh "$1" "$scratch"
for package in csi/pb cachefetch/pb; do
    diff -r -u --exclude=__init__.py --exclude=__pycache__ "$scratch/$package" "$package" || {
        echo "$package is stale: run 'make proto' and commit the result" >&2
        exit 1
    }
done
echo "generated files are fresh"
