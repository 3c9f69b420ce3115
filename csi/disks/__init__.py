"""Backends that keep cache disks."""
