"""A command's output is complete, or as it was before."""

import os
from pathlib import Path

import pytest

from mser.cache import CacheError
from mser.pipeline.output import write_output


def test_a_text_is_written_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "page.html"
    for text in ("first", "Grüße\r\n\n"):
        write_output(path, text)
        assert path.read_bytes() == text.encode()
    assert os.listdir(path.parent) == ["page.html"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CacheError, match=f"cannot write {path}: No space left on device"):
        write_output(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_link_keeps_its_target_and_a_device_stays_a_device(tmp_path: Path) -> None:
    target, link, fifo = tmp_path / "target", tmp_path / "link", tmp_path / "fifo"
    target.write_text("old")
    link.symlink_to(target)
    write_output(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    write_output(fifo, "page")
    assert os.read(reader, 9) == b"page"
    os.close(reader)
    assert fifo.is_fifo()
