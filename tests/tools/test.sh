#!/usr/bin/env bash
# test.sh PYTHON: all tests. Most run side by side and are measured for coverage; then those that compare times or need the
# cluster, with the machine to themselves. Files of tests are below a short path: sockets take 107 bytes.
set -euo pipefail
python=$1
place=$(mktemp -d /tmp/gl.XXXXXX)
trap 'rm -rf "$place"' EXIT
status=0
"$python" -m pytest -n 3 --dist worksteal -m "not cluster and not alone" --basetemp "$place/a" \
    --cov --cov-report=term:skip-covered || status=$?
"$python" -m pytest -m "alone and not cluster" --basetemp "$place/b" || status=$?
"$python" -m pytest -m cluster --basetemp "$place/c" || status=$?
exit $status
