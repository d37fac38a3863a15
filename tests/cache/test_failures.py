"""Storage that fails: the error names the path, nothing published is lost, and work can continue.

A full disk is real where the system allows the test to mount a small file system. Everywhere else a
limit on the size of files stands for it.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable
from errno import ENOSYS, ENOTSUP, EPERM
from pathlib import Path

import pytest

from mser.cache import CacheError, EntryWriter, FeatureCache, Quarantined, UtteranceFeatures
from mser.cache.storage import leases
from mser.cache.storage.leases import lease, read_leases
from mser.cache.storage.local import LocalFolder
from mser.tests.support import cache_processes
from mser.tests.support.cache_entries import array, fill, same_bits
from mser.tests.support.cache_processes import (
    MINDING,
    MOUNTING,
    answers,
    check_sentence,
    mounts,
    permissions,
    wait_for,
)

STORES = pytest.mark.parametrize("store", ["zarr", "hdf5"])


def check_goes_on(root: Path, writer: EntryWriter) -> None:
    """Everything published is readable, and more can be added."""
    entry = FeatureCache(root).open("made-up")
    assert set(entry.ids) >= {"a"}
    assert same_bits(entry["a"], array(1))
    assert not list(root.rglob(".tmp-*"))
    with writer.lease("job") as mine:
        assert mine
        writer.write_shard(9, [UtteranceFeatures("later", "hash", array(9))])
    writer.publish("9" * 12)
    entry_after = FeatureCache(root).open("made-up")
    assert {*entry.ids, "later"} == set(entry_after.ids)
    assert same_bits(entry_after["later"], array(9))


# A full disk --------------------------------------------------------------------------------------


# In each step there is a little more space, until everything fits.
SQUEEZED = """
import json, resource, subprocess, sys
from contextlib import contextmanager
from pathlib import Path
import numpy as np
from mser.cache import CacheError, FeatureCache, UtteranceFeatures
from mser.tests.support.cache_entries import array, fill, same_bits, spec

root, store, how = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

@contextmanager
def room(step):
    if how == "disk":
        ballast = root / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                file.truncate(max(0, file.tell() - 4096 * step))
        yield
        ballast.unlink()
    else:
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (step * 100, most))
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

if how == "disk":
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(root)], check=True)
expected = {"a": array(1)}
writer = fill(root, [expected], store=store)
seen = committed = {"a"}
for step in range(200):
    expected[str(step)] = array(step, frames=100)
    writer = FeatureCache(root).writer(spec(), {"step": step}, store)
    message = None
    with room(step):
        try:
            with writer.lease("job") as mine:
                assert mine
                states = expected[str(step)]
                writer.write_shard(step, [UtteranceFeatures(str(step), "hash", states)])
            writer.publish(f"{step:012}")
        except CacheError as error:
            message = str(error)
        entry = FeatureCache(root).open("made-up")
        assert seen <= set(entry.ids) <= set(writer.committed()), "an utterance is lost"
        assert all(same_bits(entry[id], expected[id]) for id in entry.ids)
        assert committed <= set(writer.committed())
        seen, committed = set(entry.ids), set(writer.committed())
    assert not list(root.rglob(".tmp-*"))
    assert not list(root.rglob("leases/*"))
    print(json.dumps(message))
    if message is None:
        break
assert seen == committed
"""


@STORES
@pytest.mark.parametrize(
    ("how", "by", "reason"),
    [
        pytest.param("disk", MOUNTING, "No space left on device; make room", marks=mounts),
        ("limit", [], "File too large; make room"),
    ],
)
def test_a_full_disk_loses_nothing(
    tmp_path: Path, store: str, how: str, by: list[str], reason: str
) -> None:
    *failed, done = answers(SQUEEZED, tmp_path, store, how, by=by)
    assert done is None
    for message in failed:
        check_sentence(message, tmp_path, reason)
    for part in ("/leases/", "/shards: ", *(["/index-", "/runs/"] if how == "disk" else [])):
        assert part in "".join(failed), f"no write of {part} met a full disk"


# Storage without permission -----------------------------------------------------------------------


REFUSED = """
import json, subprocess, sys
from pathlib import Path
from mser.cache import CacheError, FeatureCache, UtteranceFeatures, Quarantined
from mser.tests.support.cache_entries import array, fill, same_bits, spec

root, how = Path(sys.argv[1]), sys.argv[2]

def refuse(yes):
    if how == "mount":
        command = ["mount", "-o", f"remount,bind,{'ro' if yes else 'rw'}", str(root)]
        subprocess.run(command, check=True)
    else:
        for folder in (root, *root.rglob("*/")):
            folder.chmod(0o555 if yes else 0o755)

if how == "mount":
    subprocess.run(["mount", "--bind", str(root), str(root)], check=True)
writer = fill(root, [{"a": array(1)}])
new = [UtteranceFeatures("b", "hash", array(2))]
attempts = [
    lambda: FeatureCache(root).writer(spec(dataset="other"), {}),
    lambda: writer.lease("job").__enter__(),
    lambda: writer.write_shard(1, new),
    lambda: FeatureCache(root).writer(spec(), {"new": 1}).write_shard(1, new),
    lambda: writer.publish("1" * 12),
    lambda: writer.quarantine([Quarantined("c", "hash", "reason", "detail")]),
]
refuse(True)
for attempt in attempts:
    try:
        attempt()
    except CacheError as error:
        print(json.dumps(str(error)))
    assert same_bits(FeatureCache(root).open("made-up")["a"], array(1))
refuse(False)
writer.write_shard(1, new)
writer.publish("1" * 12)
entry = FeatureCache(root).open("made-up")
assert list(entry.ids) == ["a", "b"]
assert same_bits(entry["b"], array(2))
assert not list(root.rglob(".tmp-*"))
"""


@pytest.mark.parametrize(
    ("how", "by", "reason"),
    [
        pytest.param("mount", MOUNTING, "Read-only file system; choose another", marks=mounts),
        pytest.param("mode", MINDING, "Permission denied; choose another", marks=permissions),
    ],
)
def test_storage_without_permission_loses_nothing(
    tmp_path: Path, how: str, by: list[str], reason: str
) -> None:
    messages = answers(REFUSED, tmp_path, how, by=by)
    assert len(messages) == 6
    for message in messages:
        check_sentence(message, tmp_path, reason)


# Storage that disappears --------------------------------------------------------------------------


ATTEMPTS: dict[str, Callable[[FeatureCache, EntryWriter], object]] = {
    "write a shard": lambda _, writer: writer.write_shard(
        1, [UtteranceFeatures("b", "hash", array(2))]
    ),
    "publish": lambda _, writer: writer.publish("1" * 12),
    "take a lease": lambda _, writer: writer.lease("job").__enter__(),
    "quarantine": lambda _, writer: writer.quarantine([Quarantined("c", None, "absent", "")]),
    "rewrite a shard": lambda _, writer: writer.rewrite_shard(
        writer.shards()[0] if writer.shards() else "00000-" + 32 * "0", []
    ),
    "measure": lambda cache, _: cache.root.free(),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_missing_root_is_not_created_again(tmp_path: Path, attempt: str) -> None:
    """Otherwise files would be written below the mount point of an unmounted disk."""
    root, away = tmp_path / "cache", tmp_path / "away"
    writer = fill(root, [{"a": array(1)}])
    root.rename(away)
    with pytest.raises(CacheError) as raised:
        ATTEMPTS[attempt](FeatureCache(root), writer)
    check_sentence(str(raised.value), root)
    assert not root.exists()
    away.rename(root)
    check_goes_on(root, writer)


@STORES
def test_the_root_disappears_while_a_shard_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    root, away = tmp_path / "cache", tmp_path / "away"
    writer = fill(root, [{"a": array(1)}], store=store)
    commit = LocalFolder.commit

    def rename_root(self: LocalFolder, built: Path, name: str) -> None:
        root.rename(away)
        commit(self, built, name)

    with monkeypatch.context() as patched:
        patched.setattr(LocalFolder, "commit", rename_root)
        with pytest.raises(CacheError) as raised:
            writer.write_shard(1, [UtteranceFeatures("b", "hash", array(2))])
    check_sentence(str(raised.value), root, "still mounted?")
    assert not root.exists()
    away.rename(root)
    (left,) = root.rglob(".tmp-*")  # it could not be deleted while the root was missing
    shutil.rmtree(left) if left.is_dir() else left.unlink()
    check_goes_on(root, writer)


def test_a_heartbeat_does_not_create_a_missing_root_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, away = tmp_path / "cache", tmp_path / "away"
    writer = fill(root, [{"a": array(1)}])
    monkeypatch.setattr(leases, "HEARTBEAT", 0.01)
    with writer.lease("job") as mine:
        assert mine
        (first,) = read_leases(writer.folder / "leases").values()
        root.rename(away)
        time.sleep(0.1)
        assert not root.exists()
        away.rename(root)
        wait_for(lambda: [first] != list(read_leases(writer.folder / "leases").values()))
    check_goes_on(root, writer)


def test_a_missing_entry_is_an_error_that_names_the_root(tmp_path: Path) -> None:
    root, away = tmp_path / "cache", tmp_path / "away"
    fill(root, [{"a": array(1)}, {"b": array(2)}])
    entry = FeatureCache(root).open("made-up")
    assert same_bits(entry["a"], array(1))
    root.rename(away)
    assert same_bits(entry["a"], array(1))  # it is mapped
    for read in (lambda: entry["b"], lambda: entry.read(["b"], [0])):
        with pytest.raises(CacheError) as raised:
            read()
        check_sentence(str(raised.value), root)
    with pytest.raises(CacheError, match="holds no"):
        FeatureCache(root).open("made-up")
    away.rename(root)
    assert same_bits(entry["b"], array(2))


UNMOUNTED = """
import json, os, subprocess, sys
from pathlib import Path
from mser.cache import CacheError, FeatureCache, UtteranceFeatures
from mser.tests.support.cache_entries import array, fill, same_bits

place, root = Path(sys.argv[1]), Path(sys.argv[2])
subprocess.run(["mount", "--bind", str(place), str(root)], check=True)
writer = fill(root, [{"a": array(1)}])
new = [UtteranceFeatures("b", "hash", array(2))]
subprocess.run(["umount", str(root)], check=True)
attempts = [
    lambda: writer.lease("job").__enter__(),
    lambda: writer.write_shard(1, new),
    lambda: writer.publish(),
]
for attempt in attempts:
    try:
        attempt()
    except CacheError as error:
        print(json.dumps(str(error)))
    assert os.listdir(root) == [], "something lies below the place of the mount"
subprocess.run(["mount", "--bind", str(place), str(root)], check=True)
writer.write_shard(1, new)
writer.publish()
entry = FeatureCache(root).open("made-up")
assert same_bits(entry["a"], array(1)) and same_bits(entry["b"], array(2))
"""


@mounts
def test_an_unmounted_file_system_is_an_error(tmp_path: Path) -> None:
    place, root = tmp_path / "place", tmp_path / "cache"
    place.mkdir()
    root.mkdir()
    messages = answers(UNMOUNTED, place, root, by=MOUNTING)
    assert len(messages) == 3
    for message in messages:
        check_sentence(message, root, "still mounted?")


# Without hard links -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [EPERM, ENOTSUP, ENOSYS], ids=["EPERM", "ENOTSUP", "ENOSYS"])
def test_a_lease_needs_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refused)
    folder = LocalFolder(tmp_path)
    inside: list[int] = []

    def work(who: int) -> None:
        for _ in range(5):
            with lease(folder, "job", cache_processes.PATIENCE) as mine:
                assert mine
                inside.append(who)
                assert inside == [who]
                inside.remove(who)
        done.append(who)

    done: list[int] = []
    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(cache_processes.PATIENCE)
    assert sorted(done) == [0, 1, 2, 3]
    with lease(folder, "job") as mine, lease(folder, "job") as other:
        assert (mine, other) == (True, False)
    assert os.listdir(tmp_path) == []
    (tmp_path / "job.0000.json").write_text("{")
    with lease(folder, "job") as mine:
        assert mine
    assert os.listdir(tmp_path) == []
