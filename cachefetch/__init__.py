"""The store of golden cache versions and the fetcher that fills it; usable without CSI and without Kubernetes.

`model`, `manifest`, `retention` and `errors` are rules without side effects. `store`, `stage`, `linktree` and `verify`
touch the local disk. Only `sources` know the network.
"""

__version__ = "0.1.0"
