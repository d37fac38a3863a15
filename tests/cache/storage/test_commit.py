"""A commit onto a name that is taken keeps what is there; any other failure is an error."""

from errno import EEXIST, EIO, ENOTEMPTY, EPERM
from pathlib import Path

import pytest

from mser.cache import CacheError
from mser.cache.storage.local import LocalFolder


def commit(folder: LocalFolder, content: bytes) -> None:
    with folder.workspace() as built:
        built.mkdir()
        (built / "file").write_bytes(content)
        folder.commit(built, "00000-shard")


@pytest.mark.parametrize("error", [EEXIST, ENOTEMPTY, EPERM, EIO])
def test_by_whatever_error_the_file_system_refuses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    folder = LocalFolder(tmp_path)
    commit(folder, b"first")

    def refuse(*_: object) -> None:
        raise OSError(error, "refused")

    monkeypatch.setattr(Path, "rename", refuse)
    commit(folder, b"second")
    assert folder.read("00000-shard/file") == b"first"
    assert folder.names() == ["00000-shard"]
    (tmp_path / "00000-shard" / "file").unlink()
    (tmp_path / "00000-shard").rmdir()
    with pytest.raises(CacheError, match="00000-shard"):
        commit(folder, b"third")
    assert folder.names() == []
