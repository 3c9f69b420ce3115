#!/usr/bin/env bash
# gotool.sh PACKAGE@VERSION: build a command of a Go module once, outside of the checkout, and print its path.
set -euo pipefail
[[ ${1-} == */*@v* ]] || { echo "usage: gotool.sh PACKAGE@VERSION" >&2; exit 2; }
name=$(basename "${1%@*}")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/goldlink
home=$cache/$name-${1##*@}

if [ ! -x "$home/$name" ]; then
    mkdir -p "$cache"
    exec 9>"$home.lock"
    flock 9
fi
if [ ! -x "$home/$name" ]; then
    go=$("$(dirname "$0")/go.sh")
    echo "building $1 (a minute or two the first time)" >&2
    new=$(mktemp -d "$home.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    (cd "$new" && GOTOOLCHAIN=local GOBIN=$new nice "$go" install "$1") >&2
    mv -T "$new" "$home"
fi
echo "$home/$name"
