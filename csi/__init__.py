"""The CSI face of goldlink: identity, node and controller services over a unix socket."""

import os

# Read by gRPC's core when it is loaded. Its fork handlers are for children that go on with gRPC, which no child of ours
# does; with them, a fork while calls run prints a line on stderr, or crashes the child before exec.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
