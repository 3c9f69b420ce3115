#!/usr/bin/env bash
# programs.sh: build everything that the tests build from Go modules, before a test's time limit counts.
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/tools/gotool.sh github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@v5.5.0 >/dev/null
tests/tools/gotool.sh github.com/versity/versitygw/cmd/versitygw@v1.8.0 >/dev/null
tests/e2e/build.sh >/dev/null
