"""The hub alone, by its documented routes."""

from __future__ import annotations

import hashlib
import http.client
import json
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.servers.faulty import CutOff

if TYPE_CHECKING:
    from tests.servers.hub import Hub

SMALL, LARGE = b'{"layers": 1}', bytes(range(256)) * 1000
FILES = {"config.json": SMALL, "weights/model.safetensors": LARGE, "weights/notes.txt": b"notes"}
REPO = "team/model"


class Answer:
    """One answer, redirects not followed."""

    def __init__(self, url: str, *, method: str = "GET", **headers: str) -> None:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=10)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, f"{parts.path}?{parts.query}", headers=named)
        with connection.getresponse() as response:
            self.status, self.headers, self.body = response.status, response.headers, response.read()
        connection.close()


def test_a_branch_names_its_newest_commit_and_older_ones_stay(hub: Hub) -> None:
    first = hub.commit(REPO, FILES)
    second = hub.commit(REPO, {**FILES, "config.json": b"{}"})
    about = json.loads(Answer(f"{hub.url}/api/models/{REPO}/revision/main").body)
    assert about["sha"] == second != first
    assert [sibling["rfilename"] for sibling in about["siblings"]] == sorted(FILES)
    assert json.loads(Answer(f"{hub.url}/api/models/{REPO}").body)["sha"] == second
    assert Answer(f"{hub.url}/{REPO}/resolve/{first}/config.json").body == SMALL
    assert Answer(f"{hub.url}/{REPO}/resolve/main/config.json").body == b"{}"


def test_a_revision_may_contain_a_slash(hub: Hub) -> None:
    commit = hub.commit(REPO, FILES, ref="refs/pr/1")
    assert json.loads(Answer(f"{hub.url}/api/models/{REPO}/revision/refs%2Fpr%2F1").body)["sha"] == commit
    assert Answer(f"{hub.url}/{REPO}/resolve/refs%2Fpr%2F1/config.json").body == SMALL


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_a_listing_comes_in_pages(hub: Hub, page: int) -> None:
    hub.page = page
    hub.commit(REPO, FILES)
    entries: dict[str, dict[str, object]] = {}
    url, pages = f"{hub.url}/api/models/{REPO}/tree/main?recursive=true", 0
    while url:
        answer, pages = Answer(url), pages + 1
        entries |= {entry["path"]: entry for entry in json.loads(answer.body)}
        url = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
    assert pages == -(-4 // page)
    assert sorted(entries) == sorted([*FILES, "weights"])
    lfs = {"oid": hashlib.sha256(LARGE).hexdigest(), "size": len(LARGE), "pointerSize": 131}
    assert entries["weights/model.safetensors"]["lfs"] == lfs
    assert entries["weights"]["type"] == "directory"
    # As `git hash-object` gives it.
    assert entries["weights/notes.txt"]["oid"] == hashlib.sha1(b"blob 5\0notes").hexdigest()


def test_a_directory_is_listed_alone(hub: Hub) -> None:
    hub.commit(REPO, FILES)
    below = json.loads(Answer(f"{hub.url}/api/models/{REPO}/tree/main/weights").body)
    assert [entry["path"] for entry in below] == ["weights/model.safetensors", "weights/notes.txt"]
    top = json.loads(Answer(f"{hub.url}/api/models/{REPO}/tree/main").body)
    assert [entry["path"] for entry in top] == ["config.json", "weights"]


def test_a_small_file_is_answered_at_once(hub: Hub) -> None:
    commit = hub.commit(REPO, FILES)
    answer = Answer(f"{hub.url}/{REPO}/resolve/main/config.json")
    assert (answer.status, answer.body, answer.headers["X-Repo-Commit"]) == (200, SMALL, commit)
    assert answer.headers["ETag"].strip('"') == hashlib.sha1(b"blob %d\0%b" % (len(SMALL), SMALL)).hexdigest()


def test_a_large_file_is_elsewhere_without_a_token(hub: Hub) -> None:
    commit = hub.commit(REPO, FILES)
    head = Answer(f"{hub.url}/{REPO}/resolve/main/weights/model.safetensors", method="HEAD")
    assert (head.status, head.headers["X-Repo-Commit"], head.headers["X-Linked-Size"]) == (302, commit, str(len(LARGE)))
    assert head.headers["X-Linked-Etag"].strip('"') == hashlib.sha256(LARGE).hexdigest()
    where = head.headers["Location"]
    assert Answer(where).body == LARGE
    part = Answer(where, Range="bytes=1000-")
    assert (part.status, part.body) == (206, LARGE[1000:])
    assert part.headers["Content-Range"] == f"bytes 1000-{len(LARGE) - 1}/{len(LARGE)}"
    assert Answer(where, Range=f"bytes={len(LARGE)}-").status == 416
    assert Answer(where, Range="bytes=0-9", If_Range='"another"').status == 200
    assert Answer(where, Authorization=f"Bearer {hub.token}").status == 400
    assert Answer(where.replace("Expires=", "Expires=1")).status == 403
    assert hub.storage.traffic.sent("/storage/") >= 3 * len(LARGE) - 1000


def test_a_redirect_is_good_for_a_while_only(hub: Hub) -> None:
    hub.commit(REPO, FILES)
    hub.link_lifetime = -1
    where = Answer(f"{hub.url}/{REPO}/resolve/main/weights/model.safetensors").headers["Location"]
    assert Answer(where).status == 403


def test_a_private_repository_is_unknown_to_strangers(hub: Hub) -> None:
    hub.commit(REPO, FILES, private=True)
    url = f"{hub.url}/api/models/{REPO}/revision/main"
    for stranger in (Answer(url), Answer(url.replace("team", "nobody"))):
        assert (stranger.status, stranger.headers["X-Error-Code"]) == (401, "RepoNotFound")
    assert Answer(url, Authorization="Bearer wrong").status == 401
    assert Answer(url, Authorization=f"Bearer {hub.token}").status == 200


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (f"/api/models/{REPO}/revision/other", "RevisionNotFound"),
        (f"/api/models/{REPO}/tree/other", "RevisionNotFound"),
        (f"/api/models/{REPO}/tree/main/nothing", "EntryNotFound"),
        (f"/{REPO}/resolve/main/nothing", "EntryNotFound"),
        (f"/{REPO}/resolve/other/config.json", "RevisionNotFound"),
    ],
)
def test_what_does_not_exist_is_named_in_a_header(hub: Hub, path: str, code: str) -> None:
    hub.commit(REPO, FILES)
    answer = Answer(hub.url + path)
    assert (answer.status, answer.headers["X-Error-Code"]) == (404, code)


def test_data_sets_have_routes_of_their_own(hub: Hub) -> None:
    commit = hub.commit("team/data", {"rows.csv": b"1,2\n"}, kind="datasets")
    assert json.loads(Answer(f"{hub.url}/api/datasets/team/data/revision/main").body)["sha"] == commit
    assert Answer(f"{hub.url}/datasets/team/data/resolve/main/rows.csv").body == b"1,2\n"
    assert Answer(f"{hub.url}/team/data/resolve/main/rows.csv").status == 401


def test_the_other_host_can_break_off(hub: Hub) -> None:
    hub.commit(REPO, FILES)
    hub.storage.inject(CutOff(after=1000), times=1)
    url = f"{hub.url}/{REPO}/resolve/main/weights/model.safetensors"
    with pytest.raises(http.client.IncompleteRead), urllib.request.urlopen(url, timeout=10) as answer:
        answer.read()
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.read() == LARGE
