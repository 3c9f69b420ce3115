"""Tests, mirroring csi/ and cachefetch/ one to one."""
