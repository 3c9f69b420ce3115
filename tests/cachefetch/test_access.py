from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.access import may_use, visible
from cachefetch.config import Access, Cache, Config, Directory

NAME = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)


def cache(namespaces: tuple[str, ...] = (), service_accounts: tuple[str, ...] = (), name: str = "c") -> Cache:
    return Cache(
        name=name, source=Directory(path="/x"), access=Access(namespaces=namespaces, service_accounts=service_accounts)
    )


@given(NAME, NAME)
def test_absent_access_is_everyone(namespace: str, service_account: str) -> None:
    assert may_use(Cache(name="c", source=Directory(path="/x")), namespace, service_account)


@given(NAME, NAME)
def test_a_literal_matches_itself_only(namespace: str, other: str) -> None:
    assert may_use(cache((namespace,)), namespace, "any")
    assert may_use(cache((namespace,)), other, "any") == (namespace == other)


@pytest.mark.parametrize(
    ("pattern", "namespace", "expected"),
    [
        ("team-*", "team-a", True),
        ("team-*", "team-", True),
        ("team-*", "team", False),
        ("team-*", "xteam-a", False),
        ("*-ci", "a-ci", True),
        ("a*b*c", "aXbYbc", True),
        ("*", "anything", True),
        ("team.a", "teamXa", False),
        ("team", "Team", False),
        ("team", "team\n", False),
        ("*", "", False),
    ],
)
def test_star_is_the_only_wildcard(pattern: str, namespace: str, expected: bool) -> None:
    assert may_use(cache((pattern,)), namespace, "sa") is expected


@pytest.mark.parametrize(
    ("pattern", "namespace", "service_account", "expected"),
    [
        ("ci/builder", "ci", "builder", True),
        ("ci/builder", "ci", "other", False),
        ("ci/builder", "cd", "builder", False),
        ("ci/*", "ci", "x", True),
        ("*/builder", "any", "builder", True),
        ("ci*/builder", "ci/x", "builder", True),
        ("ci/*", "ci", "", False),
    ],
)
def test_service_account_patterns_match_both_sides(
    pattern: str, namespace: str, service_account: str, expected: bool
) -> None:
    assert may_use(cache((), (pattern,)), namespace, service_account) is expected


def test_either_is_enough() -> None:
    both = cache(("team",), ("ci/builder",))
    assert may_use(both, "team", "whoever")
    assert may_use(both, "ci", "builder")
    assert not may_use(both, "ci", "whoever")


def test_visible_names_only_what_the_caller_may_use() -> None:
    config = Config(caches=(cache(("b",), name="two"), cache(("a", "b"), name="one"), cache(("c",), name="three")))
    assert visible(config, "b", "sa") == ["one", "two"]
    assert visible(config, "z", "sa") == []
