"""The trial of a folder: what works, what does not, and what that means."""

import grp
import mmap
import os
import time
from errno import EINVAL, ENODEV, EPERM
from pathlib import Path

import pytest

from mser.cache.storage.local import LocalFolder
from mser.cache.storage.trial import Trial, try_folder
from mser.tests.support.real_mounts import Sshfs, needs_sshfs

ATTEMPTS = (
    "exclusive creation",
    "listing after writing",
    "replacing a file by a rename",
    "renaming a folder",
    "memory maps",
)


def only_problem(trial: Trial, *words: str) -> None:
    (sentence,) = trial.problems
    for word in words:
        assert word in sentence


def test_all_works_on_a_disk_and_nothing_is_left(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    trial = try_folder(tmp_path)
    assert trial.problems == []
    assert [trial.facts[name] for name in ATTEMPTS] == [True] * len(ATTEMPTS)
    assert trial.facts["shared by a group"] == "no: g+w and g+s missing"
    assert trial.facts["clock"] == "as that of the file system"
    assert os.listdir(tmp_path) == []


def test_no_hard_links_are_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(EPERM, "no links")

    monkeypatch.setattr(os, "link", refuse)
    assert try_folder(tmp_path).facts["exclusive creation"] is True


def test_a_file_that_is_created_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", os.rename)
    only_problem(
        try_folder(tmp_path),
        f"{tmp_path}: exclusive creation does not work (a file was created twice)",
        "run one job at a time",
    )


def test_a_listing_that_is_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = LocalFolder.names
    monkeypatch.setattr(
        LocalFolder, "names", lambda self: [n for n in right(self) if "listed" not in n]
    )
    only_problem(try_folder(tmp_path), "listing after writing", "a new file is not listed")


def test_renames_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: object) -> None:
        raise OSError(EINVAL, "Invalid argument")

    monkeypatch.setattr(Path, "rename", refuse)
    only_problem(try_folder(tmp_path), "renaming a folder", "--store hdf5")
    assert os.listdir(tmp_path) == []


def test_files_that_cannot_be_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(ENODEV, "No such device")

    monkeypatch.setattr(mmap, "mmap", refuse)
    only_problem(try_folder(tmp_path), "memory maps", "ENODEV", "copy the cache to a local disk")


@pytest.mark.parametrize(("seconds", "words"), [(600, "600 s ahead of"), (-86_400, "s behind")])
def test_a_clock_that_differs_from_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, words: str
) -> None:
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + seconds)
    trial = try_folder(tmp_path)
    only_problem(trial, words, "set the clock")
    assert words in str(trial.facts["clock"])


def test_the_bits_of_a_shared_folder(tmp_path: Path) -> None:
    name = grp.getgrgid(tmp_path.stat().st_gid).gr_name
    tmp_path.chmod(0o2775)
    trial = try_folder(tmp_path)
    assert (trial.facts["shared by a group"], trial.problems) == (f"yes, by {name}", [])
    tmp_path.chmod(0o0775)
    only_problem(try_folder(tmp_path), "has g+w but not g+s", f"chmod g+s {tmp_path}")
    tmp_path.chmod(0o3775)
    only_problem(try_folder(tmp_path), "sticky bit", f"chmod -t {tmp_path}")


@needs_sshfs
def test_sshfs_works(sshfs: Sshfs) -> None:
    trial = try_folder(sshfs.mount)
    assert trial.problems == []
    assert os.listdir(sshfs.mount) == []
