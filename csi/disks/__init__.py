"""Cache disks: images that are written once, sealed, and then read by any number of nodes (docs/adr/0010)."""
