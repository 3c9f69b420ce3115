"""The driver of the tests of csi."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.csi.conftest import driver, driver_before_start, limited, pooled, version

if TYPE_CHECKING:
    from tests.csi.driver import Driver

__all__ = ["driver", "driver_before_start", "limited", "pooled", "version"]


@pytest.fixture(params=["driver", "pooled", "limited"])
def each(request: pytest.FixtureRequest) -> Driver:
    """Volumes that show the golden tree, a link tree, a private view (with a limit: that takes all steps)."""
    driver: Driver = request.getfixturevalue(request.param)
    return driver
