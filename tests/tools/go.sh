#!/usr/bin/env bash
# go.sh: print the path of a Go that builds the tests' tools, and get it when it is missing.
# A Go of this release on PATH or in /usr/local/go is used as it is. Otherwise any older one, if need be Debian's
# golang-go (root only), fetches the toolchain: a module like any other, checked against Go's checksum database.
set -euo pipefail
version=1.26.8
cache=${XDG_CACHE_HOME:-$HOME/.cache}/goldlink
home=$cache/go$version

for go in "$(command -v go || true)" /usr/local/go/bin/go "$home/bin/go"; do
    # Any patch of the release will do. GOTOOLCHAIN=local: tell the version of this Go, not of one it would download.
    if [ -x "$go" ] && GOTOOLCHAIN=local "$go" version | grep -Eq " go${version%.*}(\.| )"; then
        echo "$go"
        exit
    fi
done

mkdir -p "$cache"
exec 9>"$cache/go.lock"
flock 9
if [ ! -x "$home/bin/go" ]; then
    command -v go >/dev/null || "$(dirname "$0")/packages.sh" <(echo golang-go) >&2
    echo "fetching Go $version" >&2
    new=$(mktemp -d "$cache/go.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    module=golang.org/toolchain@v0.0.1-go$version.$(go env GOOS)-$(go env GOARCH)
    (cd "$new" && GOTOOLCHAIN=local GOFLAGS=-modcacherw GOMODCACHE=$new go mod download "$module")
    # Modules carry no execute bits (src/cmd/go/internal/toolchain does the same).
    chmod +x "$new/$module"/bin/* "$new/$module"/pkg/tool/*/*
    mv -T "$new/$module" "$home"
fi
echo "$home/bin/go"
