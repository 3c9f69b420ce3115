"""Where caches come from; only these modules know the network."""
