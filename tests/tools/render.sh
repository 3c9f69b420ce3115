#!/usr/bin/env bash
# render.sh HELM FILE: the manifests for people without Helm, from the chart with its default values.
set -euo pipefail
cd "$(dirname "$0")/../.."
{
    echo "# Rendered from deploy/chart/goldlink by tests/tools/render.sh; do not edit. docs/install.md says how to use it."
    cat <<'EOF'
apiVersion: v1
kind: Namespace
metadata:
  name: goldlink
  labels:
    # The driver mounts for pods, which needs a privileged container.
    pod-security.kubernetes.io/enforce: privileged
EOF
    # The check before an uninstall is a hook of Helm.
    "$1" template goldlink deploy/chart/goldlink --namespace goldlink --kube-version 1.34.0 --no-hooks --include-crds --set uninstall.check=false
} >"$2"
