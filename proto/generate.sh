#!/bin/sh
# Generate the typed Python stubs of proto/*.proto. The same input and tools give the same bytes, and no output is edited.
# Usage: proto/generate.sh [python with grpcio-tools and mypy-protobuf] [directory to write below, default: the repository]
set -eu
python=$(command -v "${1:-python3}")
case $python in
    /*) ;;
    *) python=$PWD/$python ;;
esac
cd "$(dirname "$0")/.."
out=${2:-.}
# protoc finds the mypy plugins of that very python, whether or not its environment is activated.
PATH=$(dirname "$python"):$PATH
export PATH

# Options of mypy-protobuf: our servers and clients are synchronous, and like at run time a servicer may leave out methods, which
# then answer UNIMPLEMENTED.
stubs=quiet,only_sync,generate_concrete_servicer_stubs

# The virtual paths csi/pb/… make protoc write, and the stubs import, the package csi.pb; no sed needed.
"$python" -m grpc_tools.protoc -Icsi/pb=proto \
    --python_out="$out" --grpc_python_out="$out" --mypy_out="$stubs:$out" --mypy_grpc_out="$stubs:$out" \
    csi/pb/csi.proto csi/pb/pluginregistration.proto

# Likewise cachefetch.pb.
"$python" -m grpc_tools.protoc -Icachefetch/pb=proto/goldlink/cachefetch/v1 \
    --python_out="$out" --grpc_python_out="$out" --mypy_out="$stubs:$out" --mypy_grpc_out="$stubs:$out" \
    cachefetch/pb/fetch.proto
