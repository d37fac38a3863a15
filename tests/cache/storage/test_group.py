"""A folder that a group shares stays shared, whatever the umask of the processes that fill it."""

import os
from collections.abc import Iterator
from pathlib import Path
from stat import S_IMODE

import pytest

from mser.cache import Entry, FeatureCache, Quarantined, pooled_entry
from mser.cache.storage.local import LocalFolder
from mser.tests.support.cache_entries import FORMS, array, fill, path_of


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(root: Path) -> dict[bool, set[str]]:
    """The modes of all folders (True) and files (False) below a folder."""
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for path in root.rglob("*"):
        found[path.is_dir()].add(oct(S_IMODE(path.stat().st_mode)))
    return found


def fill_all(root: Path, store: str, compression: str) -> None:
    """Write a file of every kind that a cache holds, except a lease."""
    writer = fill(root, [{"a": array(1)}], store=store, compression=compression)
    writer.quarantine([Quarantined("b", None, "absent", "it is absent")])
    cache = FeatureCache(root)
    pooled_entry(cache, Entry(writer.folder))


@pytest.mark.parametrize(("store", "compression"), FORMS)
def test_a_shared_root_makes_everything_in_it_shared(
    tmp_path: Path, umask: int, store: str, compression: str
) -> None:
    root = tmp_path / "cache"
    root.mkdir()
    root.chmod(0o2770)
    fill_all(root, store, compression)
    others = 0o7 & ~umask
    assert modes(root) == {True: {oct(0o2770 | others)}, False: {oct(0o660 | others & 0o4)}}


def test_any_other_root_obeys_the_umask(tmp_path: Path, umask: int) -> None:
    for mode in (0o755, 0o775, 0o2755):  # for the last two, only one of the two bits is set
        root = tmp_path / oct(mode)
        root.mkdir()
        root.chmod(mode)
        fill_all(root, "zarr", "none")
        folder, file = 0o777 & ~umask, 0o666 & ~umask
        inherited = mode & 0o2000
        assert modes(root) == {True: {oct(folder | inherited)}, False: {oct(file)}}


def test_a_lease_in_a_shared_folder_is_readable_by_the_group(tmp_path: Path, umask: int) -> None:
    root = tmp_path / "cache"
    root.mkdir()
    root.chmod(0o2770)
    writer = fill(root, [])
    with writer.lease("job") as mine:
        assert mine
        (file,) = (path_of(writer) / "leases").iterdir()
        assert S_IMODE(file.stat().st_mode) & 0o770 == 0o660


def test_a_new_cache_in_a_shared_folder_is_shared(tmp_path: Path, umask: int) -> None:
    tmp_path.chmod(0o2770)
    LocalFolder(tmp_path / "new" / "cache").make()
    assert all(S_IMODE(p.stat().st_mode) & 0o2770 == 0o2770 for p in tmp_path.rglob("*"))


def test_a_shard_that_may_not_be_deleted_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parts belong to another user; to rename it would be allowed."""
    writer = fill(tmp_path, [{"a": array(1)}])
    monkeypatch.setattr(os, "access", lambda path, mode: "hidden_states" not in str(path))
    with pytest.raises(PermissionError, match="cannot delete"):
        (writer.folder / "shards").remove(writer.shards()[0])
    assert len(writer.shards()) == 1
