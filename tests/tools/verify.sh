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
# Helm is built for the tests of the chart and takes minutes; where it was never built, those tests do this later.
helm=$(find "${XDG_CACHE_HOME:-$HOME/.cache}/goldlink" -path '*/helm-v*/helm' -type f 2>/dev/null | head -1)
if [ -n "$helm" ]; then
    tests/tools/render.sh "$helm" "$scratch/goldlink.yaml"
    diff -u deploy/manifests/goldlink.yaml "$scratch/goldlink.yaml" || {
        echo "deploy/manifests/goldlink.yaml is stale: run tests/tools/render.sh $helm deploy/manifests/goldlink.yaml" >&2
        exit 1
    }
    echo "generated files are fresh"
else
    echo "generated files are fresh; deploy/manifests was not looked at, for there is no helm yet (make programs)"
fi
