#!/usr/bin/env bash
# packages.sh FILE: install the Debian packages that FILE lists, one a line, # starts a comment.
set -euo pipefail
mapfile -t wanted < <(sed 's/#.*//; s/[[:space:]]//g; /^$/d' "$1")
missing=()
for package in "${wanted[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing Debian packages: ${missing[*]}; install them, or run this as root on Debian" >&2
    exit 1
fi
echo "installing Debian packages: ${missing[*]}"
# Servers are started by the tests, on loopback and ports of their own: none may start by itself.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy
    trap 'rm -f $policy' EXIT
fi
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
