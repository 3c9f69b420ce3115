from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.buckets import Location, Provider, parse
from cachefetch.urls import Format


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://bucket/a/b/", Location(Provider.S3, "bucket", "a/b", tree=True)),
        ("s3://bucket/", Location(Provider.S3, "bucket", "", tree=True)),
        ("gs://bucket", Location(Provider.GCS, "bucket", "", tree=True)),
        ("az://container/a/b.tar.zst", Location(Provider.AZURE, "container", "a/b.tar.zst", tree=False)),
        ("s3://b.b-b_b/a b?c#d%20é", Location(Provider.S3, "b.b-b_b", "a b?c#d%20é", tree=False)),
    ],
)
def test_a_url_names_a_prefix_or_an_object(url: str, expected: Location) -> None:
    assert parse(url) == expected


@pytest.mark.parametrize(
    "url",
    ["", "bucket", "https://h/b", "s3:/bucket/a", "s3://", "s3:///a", "s3://a b/c", "s3://user:secret@bucket/a"],
)
def test_what_is_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not a place in an object store"):
        parse(url)


@pytest.mark.parametrize("key", ["a//b", "//", "../a", "a/./b", "a/..", "a\nb", "a/" + "x" * 256, "é" * 128])
def test_a_key_that_is_no_path_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="has a key that is no path"):
        parse(f"s3://bucket/{key}")


def test_a_key_says_name_and_format_whatever_is_in_it() -> None:
    assert parse("s3://bkt/a/model v1?x#y.tar.gz").format is Format.TAR_GZ
    assert parse("s3://bkt/a/model v1?x#é.bin").format is Format.FILE
    assert parse("s3://bkt/a/model v1?x#é.bin").name == "model v1?x#é.bin".encode()


@given(st.text(st.sampled_from("ab.-/%?#é"), max_size=12))
def test_a_place_is_written_as_it_was_read(rest: str) -> None:
    try:
        location = parse(f"s3://bucket/{rest}")
    except ValueError:
        return
    assert location.url == f"s3://bucket/{rest}"
    assert parse(location.url) == location
