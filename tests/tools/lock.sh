#!/usr/bin/env bash
# lock.sh PYTHON: requirements/*.txt from pyproject.toml, with hashes and without the address of an index.
set -euo pipefail
options=(--quiet --no-header --no-emit-index-url --generate-hashes --universal --python-version 3.11 --no-annotate)
"$1" -m pip install --quiet uv
"$1" -m uv pip compile "${options[@]}" --extra dev pyproject.toml --output-file requirements/dev.txt
"$1" -m uv pip compile "${options[@]}" pyproject.toml --output-file requirements/run.txt
"$1" -m uv pip compile "${options[@]}" --extra bench --constraint requirements/dev.txt pyproject.toml --output-file requirements/bench.txt
