from __future__ import annotations

import re

import grpc
import pytest

from cachefetch import errors
from cachefetch.errors import Code, GoldlinkError


def classes() -> list[type[GoldlinkError]]:
    found, pending = [], [GoldlinkError]
    while pending:
        found.append(pending.pop())
        pending += found[-1].__subclasses__()
    return [each for each in found if each.__module__ == errors.__name__]


def test_the_codes_are_those_of_grpc() -> None:
    assert {code.name: code.value for code in Code} == {
        status.name: status.value[0] for status in grpc.StatusCode if status.name in Code.__members__
    }


@pytest.mark.parametrize("error", classes())
def test_every_error_has_a_code_and_an_exit_status_that_mean_failure(error: type[GoldlinkError]) -> None:
    assert error.code in Code
    assert error.exit_status in {1, 2}


def test_the_overview_at_the_top_names_every_error_once() -> None:
    assert errors.__doc__ is not None
    tree = re.findall(r"[├└]── (\w+)", errors.__doc__)
    assert sorted(tree) == sorted(error.__name__ for error in classes() if error is not GoldlinkError)


def test_only_mistakes_of_the_user_exit_with_2() -> None:
    assert {error for error in classes() if error.exit_status == 2} == {errors.ConfigError, errors.InvalidRequest}


def test_an_entry_that_is_unsafe_is_bad_data_and_a_bad_network_is_not() -> None:
    assert issubclass(errors.UnsafeEntry, errors.DataError)
    assert errors.SourceError.code is Code.UNAVAILABLE
    assert errors.DataError.code is Code.DATA_LOSS
