"""Layers into versions, without a registry: compared with a plain model of the specification, and with buildah."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cachefetch import manifest
from cachefetch.errors import DataError, GoldlinkError, OutOfSpace, UnsafeEntry
from cachefetch.limits import Limits
from cachefetch.sources.oci_layers import Layers
from cachefetch.sources.oci_manifest import Layer, Made
from cachefetch.store import Store
from tests.cachefetch.fakes import CACHE, check_store, memory
from tests.servers.images import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachefetch.model import Entry, Version

Item = tuple[str, bytes]
"""A name as it stands in the archive, and what it is: b"d", b"f" + content, b"l" + target, b"h" + target."""


def pack(items: Sequence[Item], *, time: int = 7) -> bytes:
    """A plain tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number, (name, what) in enumerate(items):
            info = tarfile.TarInfo(name)
            info.mtime = time + number
            info.mode = 0o755 if what[:1] == b"d" else 0o644
            kind, rest = what[:1], what[1:]
            info.type = {b"d": tarfile.DIRTYPE, b"l": tarfile.SYMTYPE, b"h": tarfile.LNKTYPE}.get(kind, tarfile.REGTYPE)
            info.linkname = rest.decode() if kind in b"lh" else ""
            info.size = len(rest) if kind == b"f" else 0
            archive.addfile(info, io.BytesIO(rest) if kind == b"f" else None)
    return out.getvalue()


@dataclass
class Images:
    """A store with one cache, whose versions are made of layers; `fetched` has the digests of those that were read."""

    store: Store
    scratch: Path
    fetched: list[str] = field(default_factory=list)

    def publish(
        self, *layers: bytes, made: Made = Made.CHANGES, names: Sequence[bytes] = (), limits: Limits | None = None
    ) -> Version:
        """Publish the version that these layers make, the lowest first."""
        described = []
        for number, data in enumerate(layers):
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            (self.scratch / digest).write_bytes(data)
            described.append(Layer(digest, len(data), made, names[number] if names else b""))
        self.fetched.clear()

        def fetch(layer: Layer) -> Path:
            self.fetched.append(layer.digest)
            return self.scratch / layer.digest

        with self.store.refreshing(CACHE), self.store.stage(CACHE, "image", limits=limits) as stage:
            Layers(stage, fetch).fill(described)
            return self.store.publish(CACHE, stage.seal(), stage.index, {})

    def entries(self, version: Version) -> dict[bytes, Entry]:
        return {entry.path: entry for entry in manifest.read(self.store.manifest(CACHE, version.id))}

    def contents(self, version: Version) -> dict[str, bytes]:
        """Files and symlinks by path, with content or text; directories without."""
        tree, found = self.store.tree(CACHE, version.id), {}
        for path in tree.rglob("*"):
            if path.is_symlink():
                content = str(path.readlink()).encode()
            else:
                content = b"" if path.is_dir() else path.read_bytes()
            found[str(path.relative_to(tree))] = content
        return found

    def inode(self, version: Version, path: str) -> int:
        return (self.store.tree(CACHE, version.id) / path).lstat().st_ino


def images_in(place: Path) -> Images:
    (place / "scratch").mkdir()
    return Images(Store.open(place / "state"), place / "scratch")


@pytest.fixture
def images(store: Store, tmp_path: Path) -> Images:
    (tmp_path / "scratch").mkdir()
    return Images(store, tmp_path / "scratch")


# The specification, as plainly as it can be written: from the lowest layer to the highest, deleting as it says


def remove(tree: dict[str, bytes], path: str) -> None:
    for found in [found for found in tree if found == path or found.startswith(path + "/")]:
        del tree[found]


def whiten(tree: dict[str, bytes], layer: Sequence[Item]) -> None:
    for name, _ in layer:
        head, slash, base = name.rpartition("/")
        if base == ".wh..wh..opq":
            for found in [found for found in tree if found.startswith(head + slash)]:
                del tree[found]
        elif base.startswith(".wh."):
            remove(tree, head + slash + base[4:])


def applied(layers: Sequence[Sequence[Item]]) -> dict[str, bytes]:
    """Raises KeyError where an engine fails: something is to be put below what is no directory."""
    tree: dict[str, bytes] = {}
    for layer in layers:
        whiten(tree, layer)
        own: dict[str, bytes] = {}
        for name, what in layer:
            for parent in parents(name):
                if tree.setdefault(parent, b"d") != b"d":
                    raise KeyError(parent)
            if not name.rpartition("/")[2].startswith(".wh."):
                own[name] = own[what[1:].decode()] if what[:1] == b"h" else what
                if own[name] != b"d" or tree.get(name) != b"d":
                    remove(tree, name)
                tree[name] = own[name]
    return tree


def parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


NAME = st.sampled_from(["a", "b", "c"])
PATH = st.lists(NAME, min_size=1, max_size=3).map("/".join)


@st.composite
def layer(draw: st.DrawFn) -> list[Item]:
    """A proper layer: each path once, with its parents before it, and hardlinks after what they link to."""
    items: dict[str, bytes] = {}
    for path in draw(st.lists(PATH, max_size=6)):
        for parent in parents(path):
            if items.setdefault(parent, b"d") != b"d":
                break
        else:
            files = [name for name, what in items.items() if what[:1] in b"fl"]
            kinds = [st.just(b"d"), st.binary(max_size=2).map(lambda data: b"f" + data), st.just(b"lx/y")]
            if files:
                kinds.append(st.sampled_from(files).map(lambda name: b"h" + name.encode()))
            items.setdefault(path, draw(st.one_of(kinds)))
    markers: dict[str, bytes] = {}
    for path in draw(st.lists(PATH, max_size=3)):
        head, slash, base = path.rpartition("/")
        if all(items.get(parent, b"d") == b"d" for parent in parents(path)):
            markers[head + slash + draw(st.sampled_from([".wh." + base, ".wh..wh..opq"]))] = b"f"
    made: list[Item] = list(items.items())
    for marker in markers.items():
        made.insert(draw(st.integers(0, len(made))), marker)
    return made


@st.composite
def arranged(draw: st.DrawFn) -> list[Item]:
    """A layer whose directories come before what is in them; some are not listed at all."""
    items = draw(layer())
    known = {name for name, _ in items}
    heads = {head for name, _ in items for head in parents(name)} - known
    directories = sorted(heads | {name for name, what in items if what == b"d"})
    listed: list[Item] = [(name, b"d") for name in directories if draw(st.integers(0, 3))]
    return listed + [item for item in items if item[1] != b"d"]


STACK = st.lists(arranged(), min_size=1, max_size=4)


@settings(deadline=None, max_examples=150)
@given(STACK)
@example([[("a", b"d"), ("a/b", b"f1")], [("a", b"f2")], [("a", b"d")]])
@example([[("a", b"d"), ("a/b", b"f1")], [("a", b"d"), ("a/.wh.b", b"f"), ("a/b", b"d")]])
@example([[("a", b"f1"), ("b", b"ha")], [(".wh.a", b"f")]])
@example([[("a/b", b"f1")], [("a/.wh.b", b"f")]])
@example([[("a", b"f1")], [("a/b", b"f2")]])
@example([[("a", b"f1")], [("a/b", b"f2")], [(".wh.a", b"f")]])
@example([[("a", b"lx"), ("b", b"ha"), ("c", b"hb")], [(".wh.a", b"f")]])
def test_layers_make_what_the_specification_says(stack: list[list[Item]]) -> None:
    with memory() as place:
        images = images_in(Path(place))
        try:
            expected = {name: b"" if what == b"d" else what[1:] for name, what in applied(stack).items()}
        except KeyError:
            with suppress(UnsafeEntry):  # nothing is wrong when a higher layer hides all of it
                images.publish(*map(pack, stack))
        else:
            assert images.contents(images.publish(*map(pack, stack))) == expected
        check_store(images.store)


@settings(deadline=None, max_examples=150)
@given(st.lists(STACK, min_size=1, max_size=2), st.data())
def test_a_version_is_the_same_whatever_was_there_before(stacks: list[list[list[Item]]], data: st.DataObject) -> None:
    """Layers are taken away, exchanged and put elsewhere; every version equals the one that is fetched as the first."""
    pool = [pack(items) for stack in stacks for items in stack]
    with memory() as place, memory() as other:
        images = images_in(Path(place))
        for number in range(3):
            chosen = data.draw(st.lists(st.sampled_from(pool), min_size=1, max_size=4), label=f"version {number}")
            alone = Path(other, str(number))
            alone.mkdir()
            try:
                expected = images_in(alone).publish(*chosen).id
            except UnsafeEntry:
                with pytest.raises(UnsafeEntry):
                    images.publish(*chosen)
            else:
                assert images.publish(*chosen).id == expected
            check_store(images.store)


def test_what_buildah_makes_of_an_image_is_made_here(images: Images, tmp_path: Path) -> None:
    stack: list[list[Item]] = [
        [("etc", b"d"), ("etc/conf", b"f1"), ("etc/old", b"f2"), ("bin", b"d"), ("bin/a", b"f3"), ("bin/b", b"hbin/a")],
        [
            ("opt", b"d"),
            ("opt/kept", b"f9"),
            ("opt/sub", b"d"),
            ("opt/sub/kept", b"f10"),
            ("bin/link", b"l../etc"),
            ("srv/x/y", b"f"),
        ],
        [("etc", b"d"), ("etc/.wh.old", b"f"), ("etc/conf", b"f4"), ("lib", b"d"), ("lib/x", b"f5"), ("l", b"llib/x")],
        [
            ("srv/x/.wh.y", b"f"),
            ("lib", b"d"),
            ("lib/y", b"f6"),
            ("lib/.wh..wh..opq", b"f"),
            ("bin", b"d"),
            ("bin/.wh.a", b"f"),
        ],
        [(".wh.l", b"f"), ("etc", b"f7"), ("lib", b"d"), ("lib/d", b"d"), ("lib/d/.wh.nothing", b"f")],
        [(".wh.etc", b"f"), ("etc", b"d"), ("etc/new", b"f8")],
    ]
    layers = [pack(items) for items in stack]
    layout = Layout(tmp_path / "layout")
    layout.tag(layout.image(layers))
    storage = ["--root", str(tmp_path / "root"), "--runroot", str(tmp_path / "run"), "--storage-driver", "vfs"]

    def buildah(*arguments: str) -> str:
        command = ["buildah", *storage, *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    container = buildah("from", "--pull-never", "oci:layout:pushed")  # buildah takes no path with capitals
    try:
        theirs = Path(buildah("mount", container))
        ours = images.store.tree(CACHE, images.publish(*layers).id)
        subprocess.run(["diff", "-r", "--no-dereference", theirs, ours], check=True, capture_output=True)
        files = [path.relative_to(ours) for path in ours.rglob("*") if path.is_symlink() or path.is_file()]
        assert sorted(map(str, files)) == ["bin/b", "bin/link", "etc/new", "lib/y", "opt/kept", "opt/sub/kept"]
        for path in files:
            assert (theirs / path).lstat().st_mtime_ns == (ours / path).lstat().st_mtime_ns, path
    finally:
        buildah("umount", container)
        buildah("rm", container)


# What is not read again


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


BASE = pack([("d", b"d"), ("d/a", b"f1"), ("d/b", b"f2"), ("d/link", b"la")])


def test_a_layer_that_is_added_is_all_that_is_read(images: Images) -> None:
    first = images.publish(BASE)
    added = pack([("d", b"d"), ("d/b", b"f3"), ("d/c", b"f4")])
    second = images.publish(BASE, added)
    assert images.fetched == [digest(added)]
    assert images.contents(second) == {"d": b"", "d/a": b"1", "d/b": b"3", "d/c": b"4", "d/link": b"a"}
    assert images.inode(second, "d/a") == images.inode(first, "d/a")


def test_a_layer_that_is_exchanged_shows_what_it_hid_of_those_below(images: Images) -> None:
    """What was hidden was never stored, so the layer below is read once more, and keeps what was seen all the time."""
    upper, other = pack([("d", b"d"), ("d/b", b"f3"), ("d/.wh.link", b"f")]), pack([("e", b"f4")])
    first = images.publish(BASE, upper)
    second = images.publish(BASE, other)
    assert images.fetched == [digest(other), digest(BASE)]
    assert images.contents(second) == {"d": b"", "d/a": b"1", "d/b": b"2", "d/link": b"a", "e": b"4"}
    assert images.inode(second, "d/a") == images.inode(first, "d/a")


def test_directories_and_symlinks_that_reappear_need_no_layer(images: Images) -> None:
    base = pack([("d", b"d"), ("d/link", b"la"), ("d/deep", b"d")])
    images.publish(base, pack([(".wh.d", b"f")]))
    images.publish(base)
    assert images.fetched == []


def test_a_whiteout_in_a_new_layer_hides_what_an_old_layer_has(images: Images) -> None:
    images.publish(BASE)
    second = images.publish(BASE, upper := pack([("d", b"d"), ("d/.wh.a", b"f")]))
    assert images.fetched == [digest(upper)]
    assert images.contents(second) == {"d": b"", "d/b": b"2", "d/link": b"a"}


def test_a_whiteout_of_an_old_layer_hides_what_a_new_layer_below_has(images: Images) -> None:
    upper = pack([("d", b"d"), ("d/.wh.new", b"f"), ("e", b"d"), ("e/.wh..wh..opq", b"f")])
    images.publish(BASE, upper)
    middle = pack([("d", b"d"), ("d/new", b"f5"), ("e", b"d"), ("e/x", b"f6")])
    second = images.publish(BASE, middle, upper)
    assert images.fetched == [digest(middle)]
    assert sorted(images.contents(second)) == ["d", "d/a", "d/b", "d/link", "e"]


def test_one_layer_twice_in_an_image_is_read_once_and_hides_itself(images: Images) -> None:
    version = images.publish(BASE, pack([("d", b"d"), ("d/.wh.a", b"f")]), BASE)
    assert images.contents(version) == {"d": b"", "d/a": b"1", "d/b": b"2", "d/link": b"a"}


def test_a_damaged_file_of_the_version_before_is_read_again(images: Images) -> None:
    base = pack([("a", b"f1"), ("b", b"ha"), ("c", b"f2")])
    first = images.publish(base)
    golden = images.store.tree(CACHE, first.id) / "a"
    golden.unlink()
    golden.write_bytes(b"bad!")
    second = images.publish(base, pack([("e", b"f3")]))
    assert images.contents(second) == {"a": b"1", "b": b"1", "c": b"2", "e": b"3"}
    golden.unlink()  # and the fixture finds a sound store
    golden.write_bytes(b"1")
    golden.chmod(0o444)
    os.utime(golden, ns=(7 * 10**9, 7 * 10**9))


def test_hardlinks_become_files_of_their_own_also_when_what_they_link_to_is_hidden(images: Images) -> None:
    base = pack([("a", b"f1"), ("b", b"ha"), ("c", b"hb"), ("s", b"lx"), ("t", b"hs")])
    first = images.publish(base, upper := pack([(".wh.a", b"f"), ("b", b"f2"), (".wh.s", b"f")]))
    assert images.contents(first) == {"b": b"2", "c": b"1", "t": b"x"}
    second = images.publish(base, upper, pack([("e", b"f3")]))
    assert digest(base) not in images.fetched
    assert images.inode(second, "c") == images.inode(first, "c")
    third = images.publish(base)
    assert images.contents(third) == {"a": b"1", "b": b"1", "c": b"1", "s": b"x", "t": b"x"}


def test_hardlinks_may_be_written_as_absolute_paths(images: Images) -> None:
    version = images.publish(pack([("d", b"d"), ("d/a", b"f1"), ("b", b"h/d/a")]))
    assert images.contents(version)["b"] == b"1"


def test_a_directory_has_the_time_of_the_highest_layer_that_lists_it(images: Images) -> None:
    version = images.publish(
        pack([("d", b"d")], time=5), pack([("d", b"d"), ("d/a", b"f")], time=9), pack([("d/b", b"f")])
    )
    assert images.entries(version)[b"d"].mtime_ns == 9 * 10**9


def test_a_directory_that_is_listed_twice_is_what_was_said_last(images: Images) -> None:
    base = pack([("d", b"d"), ("d", b"d")], time=5)
    first = images.publish(base)
    assert images.entries(first)[b"d"].mtime_ns == 6 * 10**9
    assert images.publish(base).id == first.id


# Forms of layers


@pytest.mark.parametrize("program", ["gzip", "zstd", "cat"])
def test_a_layer_may_be_compressed_in_any_way(images: Images, program: str) -> None:
    packed = subprocess.run([program], input=BASE, capture_output=True, check=True).stdout
    assert images.contents(images.publish(packed))["d/a"] == b"1"


def test_the_root_of_the_tree_is_no_entry_however_it_is_written(images: Images) -> None:
    version = images.publish(pack([("./", b"d"), ("/", b"d"), ("./a", b"f1"), ("./.wh.b", b"f")]))
    assert images.contents(version) == {"a": b"1"}


def test_what_aufs_left_in_old_layers_is_not_part_of_the_image(images: Images) -> None:
    items = [(".wh..wh.aufs", b"f"), (".wh..wh.plnk", b"d"), (".wh..wh.plnk/1.2", b"f3"), ("a", b"f1")]
    assert images.contents(images.publish(pack(items))) == {"a": b"1"}


def test_files_of_an_artifact_have_their_titles_and_no_time(images: Images) -> None:
    version = images.publish(b"weights", b".wh.x", made=Made.FILE, names=[b"model/a.bin", b".wh.b"])
    assert images.contents(version) == {"model": b"", "model/a.bin": b"weights", ".wh.b": b".wh.x"}
    assert images.entries(version)[b"model/a.bin"].mtime_ns == 0
    second = images.publish(b"weights", b"other", made=Made.FILE, names=[b"model/a.bin", b".wh.b"])
    assert images.fetched == [digest(b"other")]
    assert images.inode(second, "model/a.bin") == images.inode(version, "model/a.bin")


def test_an_unpacked_directory_of_an_artifact_knows_no_whiteouts(images: Images) -> None:
    data = gzip.compress(pack([("d", b"d"), ("d/.wh.a", b"f1"), ("d/b", b"hd/.wh.a")]))
    version = images.publish(data, made=Made.TREE, names=[b"d"])
    assert images.contents(version) == {"d": b"", "d/.wh.a": b"1", "d/b": b"1"}


# Hostile layers


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([("../x", b"f")], "no component"),
        ([("a/../../x", b"f")], "no component"),
        ([("/etc/passwd", b"f")], "absolute"),
        ([("a", b"f1"), ("a", b"f2")], "twice"),
        ([("a", b"f1"), ("a", b"d")], "twice"),
        ([("a", b"f1"), ("a/b", b"f2")], "file or a symlink"),
        ([("l", b"l/tmp"), ("l/x", b"f")], "symlink"),
        ([("b", b"ha")], "no earlier file"),
        ([("b", b"h../../etc/passwd")], "no earlier file"),
        ([("d", b"d"), ("b", b"hd")], "no earlier file"),
        ([("b", b"hb")], "no earlier file"),
        ([(".wh.", b"f")], "refused"),
        ([(".wh..", b"f")], "no component"),
        ([(".wh...", b"f")], "no component"),
        ([("d/.wh...", b"f")], "no component"),
        ([(".wh.d/x", b"f")], "no directory may be called"),
        ([("a/.wh.d/x", b"f")], "no directory may be called"),
    ],
)
def test_a_hostile_entry_is_refused(images: Images, items: list[Item], reason: str) -> None:
    """Wherever it is: alone, and where a higher layer hides it."""
    cover = pack([(".wh.a", b"f"), (".wh.l", b"f"), (".wh.b", b"f"), (".wh.etc", b"f")])
    with pytest.raises(UnsafeEntry, match=reason):
        images.publish(pack(items))
    with pytest.raises(UnsafeEntry, match=reason):
        images.publish(pack(items), cover)
    assert images.store.versions(CACHE) == []


def test_a_layer_cannot_write_through_a_symlink_of_a_lower_one(images: Images, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    lower = pack([("l", b"l" + str(tmp_path / "outside").encode())])
    with pytest.raises(UnsafeEntry, match="another entry has that path"):
        images.publish(lower, pack([("l/x", b"f1")]))
    assert list((tmp_path / "outside").iterdir()) == []


def test_an_entry_of_an_artifact_stays_in_its_directory(images: Images) -> None:
    for name in ("x", "dx/a", "../d/a", "d/../x"):
        with pytest.raises(UnsafeEntry):
            images.publish(pack([(name, b"f")]), made=Made.TREE, names=[b"d"])
    for title in (b"../x", b"/x", b"a//b", b""):
        with pytest.raises(UnsafeEntry):
            images.publish(b"x", made=Made.FILE, names=[title])


def test_a_file_may_not_grow_beyond_the_limit_nor_the_entries(images: Images) -> None:
    with pytest.raises(OutOfSpace):
        images.publish(gzip.compress(pack([("a", b"f" + bytes(1 << 20))])), limits=Limits(max_bytes=1000))
    with pytest.raises(UnsafeEntry, match="more than 3 entries"):
        images.publish(pack([(str(number), b"f") for number in range(4)]), limits=Limits(max_entries=3))


def test_whoever_listens_may_end_a_fetch_also_while_something_hidden_is_passed_over(images: Images) -> None:
    calls = 0

    class StoppedError(Exception):
        pass

    def listen(count: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise StoppedError

    huge = gzip.compress(pack([("a", b"f" + bytes(30 << 20))]))
    layers = [Layer(digest(data), len(data), Made.CHANGES) for data in (huge, pack([("a", b"f1")]))]
    for made, data in zip(layers, (huge, pack([("a", b"f1")])), strict=True):
        (images.scratch / made.digest).write_bytes(data)
    with (
        images.store.refreshing(CACHE),
        pytest.raises(StoppedError),
        images.store.stage(CACHE, "image", on_bytes=listen) as stage,
    ):
        Layers(stage, lambda layer: images.scratch / layer.digest).fill(layers)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9999), st.integers(0, 255)), max_size=5), st.booleans())
def test_a_damaged_layer_is_read_or_refused(edits: list[tuple[int, int]], packed: bool) -> None:
    data = bytearray(gzip.compress(BASE, mtime=0) if packed else BASE)
    for at, value in edits:
        data[at % len(data)] = value
    with memory() as place:
        images = images_in(Path(place))
        try:
            images.publish(bytes(data))
        except GoldlinkError as error:
            assert str(error)
        check_store(images.store)


def test_a_device_is_named_and_refused(images: Images) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("dev/null")
        info.type = tarfile.CHRTYPE
        archive.addfile(info)
    with pytest.raises(DataError, match="'dev/null' is a character device"):
        images.publish(out.getvalue())
