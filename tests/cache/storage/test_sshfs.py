"""The cache on sshfs, which answers some calls otherwise than a disk does."""

import os
from pathlib import Path

from mser.cache import Entry, verify
from mser.cache.storage.local import LocalFolder
from mser.tests.support.cache_entries import FOUR, array, fill, same_bits
from mser.tests.support.real_mounts import Sshfs, needs_sshfs

pytestmark = needs_sshfs


def build(built: Path) -> None:
    (built / "inner").mkdir(parents=True)
    (built / "inner" / "file").write_bytes(b"content")


def test_a_shard_that_another_writer_has_committed_stays(sshfs: Sshfs) -> None:
    """The rename onto it fails with EPERM, where a disk says ENOTEMPTY."""
    folder = LocalFolder(sshfs.mount)
    for _ in range(2):
        with folder.workspace() as built:
            build(built)
            folder.commit(built, "00000-shard")
    assert os.listdir(sshfs.behind) == ["00000-shard"]
    assert folder.read("00000-shard/inner/file") == b"content"


def test_entries_are_written_by_two_writers_and_read(sshfs: Sshfs) -> None:
    for store, compression in FOUR:
        shards = [{"a": array(1)}, {"b": array(2)}]
        root = sshfs.mount / f"{store}-{compression}"
        for _ in range(2):
            writer = fill(root, shards, True, store, compression)
        entry = Entry(writer.folder)
        assert same_bits(entry["a"], array(1))
        assert same_bits(entry["b"], array(2))
        assert not verify(writer.folder).damage
        with writer.lease("job") as mine, writer.lease("job") as again:
            assert (mine, again) == (True, False)
