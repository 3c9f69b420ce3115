"""Whether the driver is what the specification and its users' tools expect."""
