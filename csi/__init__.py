"""The CSI face of goldlink: identity, node and controller services over a unix socket."""
