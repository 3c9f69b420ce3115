"""The driver of the tests of csi."""

from __future__ import annotations

from tests.csi.conftest import driver, driver_before_start, either, pooled, version

__all__ = ["driver", "driver_before_start", "either", "pooled", "version"]
