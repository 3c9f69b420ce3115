"""A real Kubernetes for tests, in namespaces of its own, and what goldlink does there."""
