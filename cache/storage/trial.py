"""Try in a folder what the cache needs of a file system, and say what does not work there."""

import grp
import mmap
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from errno import errorcode
from pathlib import Path
from stat import S_ISGID, S_ISVTX, S_IWGRP
from uuid import uuid4

from ..errors import CacheError
from .folder import TEMPORARY
from .group import is_shared
from .local import LocalFolder

_FILES = 20
_MOST_SKEW = 60.0  # seconds


@dataclass
class Trial:
    """What works in a folder."""

    facts: dict[str, bool | str] = field(default_factory=dict)
    """The result of each attempt, by its name."""
    problems: list[str] = field(default_factory=list)
    """A sentence for each attempt that failed: what it means and what to do."""


def try_folder(folder: Path) -> Trial:
    """Try in an existing folder what the cache does; what is made there is deleted again."""
    trial, at = Trial(), LocalFolder(folder / f"{TEMPORARY}{uuid4().hex}-trial")
    try:
        at.make()
        for name, (attempt, meaning) in _ATTEMPTS.items():
            try:
                result = attempt(at)
            except (OSError, CacheError, ValueError) as error:
                result = _reason(error)
            trial.facts[name] = result or True
            if result:
                trial.problems.append(f"{folder}: {name} does not work ({result}): {meaning}")
        trial.facts["shared by a group"] = _group(folder, at, trial.problems)
        trial.facts["clock"] = _clock(folder, at, trial.problems)
    finally:
        shutil.rmtree(at.at, ignore_errors=True)
    return trial


def _created_once(at: LocalFolder) -> str:
    answers = [at.create("lease", content) for content in (b"first", b"second")]
    if answers == [True, False] and at.read("lease") == b"first":
        return ""
    return "a file was created twice" if all(answers) else "the content is lost"


def _listed(at: LocalFolder) -> str:
    for number in range(_FILES):
        at.write(f"listed-{number}", b"content")
        if f"listed-{number}" not in at.names():
            return "a new file is not listed"
    for number in range(_FILES):
        at.remove(f"listed-{number}")
        if f"listed-{number}" in at.names():
            return "a deleted file is still listed"
    return ""


def _replaced(at: LocalFolder) -> str:
    for content in (b"old", b"new"):
        at.write("replaced", content)
    return "" if at.read("replaced") == b"new" else "the old content is still there"


def _committed(at: LocalFolder) -> str:
    """Commit a folder twice: the second time, its name is taken."""
    for _ in range(2):
        with at.workspace() as built:
            (built / "inner").mkdir(parents=True)
            (built / "inner" / "file").write_bytes(b"content")
            at.commit(built, "committed")
    whole = at.read("committed/inner/file") == b"content" and at.committed().count("committed") == 1
    return "" if whole and os.listdir(at.at / "committed") == ["inner"] else "it is not complete"


def _mapped(at: LocalFolder) -> str:
    at.write("mapped", b"content")
    with (
        (at.at / "mapped").open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        return "" if mapped[:] == b"content" else "it has another content"


_ATTEMPTS: dict[str, tuple[Callable[[LocalFolder], str], str]] = {
    "exclusive creation": (
        _created_once,
        "jobs that run at once would not see each other's leases and would do the same work; run "
        "one job at a time",
    ),
    "listing after writing": (
        _listed,
        "a job may not see the shards of another and extracts them again; run one job at a time",
    ),
    "replacing a file by a rename": (
        _replaced,
        "no entry can be published; choose another place for the cache",
    ),
    "renaming a folder": (
        _committed,
        "shards of Zarr cannot be stored; extract with --store hdf5, or choose another place",
    ),
    "memory maps": (
        _mapped,
        "uncompressed features cannot be read; copy the cache to a local disk before training",
    ),
}


def _group(folder: Path, at: LocalFolder, problems: list[str]) -> str:
    """Return whether a group shares the folder, and with which group."""
    status = folder.stat()
    writable, inherited = bool(status.st_mode & S_IWGRP), bool(status.st_mode & S_ISGID)
    if not is_shared(folder):
        missing = [
            *([] if writable else ["g+w"]),
            *([] if inherited else ["g+s"]),
        ]
        if len(missing) == 1:
            problems.append(
                f"{folder} has {'g+s' if inherited else 'g+w'} but not {missing[0]}, so other "
                f"users of its group cannot write what you write: chmod {missing[0]} {folder}, or "
                "use it alone"
            )
        return f"no: {' and '.join(missing)} missing"
    name = _group_name(status.st_gid)
    at.write("of-the-group", b"")
    made = [at.at, at.at / "of-the-group"]
    if any(path.stat().st_gid != status.st_gid or not path.stat().st_mode & 0o20 for path in made):
        problems.append(
            f"{folder} is shared by the group {name}, but the file system does not give new files "
            "to the group: only the user who filled this cache can continue it"
        )
    if status.st_mode & S_ISVTX:
        problems.append(
            f"{folder} has the sticky bit, so nobody can replace or delete the files of others: "
            f"chmod -t {folder}"
        )
    return f"yes, by {name}"


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _clock(folder: Path, at: LocalFolder, problems: list[str]) -> str:
    ahead = at.clock_ahead()
    if abs(ahead) < _MOST_SKEW:
        return "as that of the file system"
    side = "ahead of" if ahead > 0 else "behind"
    text = f"{abs(ahead):.0f} s {side} that of the file system"
    problems.append(
        f"the clock of this host is {abs(ahead):.0f} s {side} the clock of {folder}: mser works, "
        "but the times that 'mser cache ls' and 'info' show are wrong; set the clock"
    )
    return text


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"{errorcode.get(error.errno, error.errno)}: {os.strerror(error.errno)}"
    return " ".join(str(error).split())
