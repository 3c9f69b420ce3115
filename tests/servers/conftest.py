"""The servers that are tested here."""

from tests.servers.fixtures import *  # noqa: F403  (that is how pytest shares fixtures between directories)
