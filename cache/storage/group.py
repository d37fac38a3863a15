"""Folders that a group of users shares: everything made in one belongs to the group.

A folder is shared if its mode has the set-group-ID bit and write permission for the group, as those
that ``git init --shared`` makes. All that is made in it gets the group's permissions too, whatever
the umask of the process, and the folders made in it are shared in turn.
"""

import os
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR, S_ISGID, S_IWGRP


def is_shared(folder: Path) -> bool:
    """Return whether a group shares a folder; raises ``OSError`` if it does not exist."""
    mode = folder.stat().st_mode
    return bool(mode & S_ISGID and mode & S_IWGRP)


def share(path: Path) -> None:
    """Give a new file or folder to the group that shares the folder it is in, if one does."""
    if not is_shared(path.parent):
        return
    mode = path.stat().st_mode
    wanted = mode | (mode & 0o700) >> 3
    if S_ISDIR(mode):
        wanted |= S_ISGID
    if wanted != mode:
        with suppress(PermissionError):  # a file system without modes, or a file of another user
            path.chmod(wanted & 0o7777)


def make_folder(path: Path) -> None:
    """Create a folder and its parents; do nothing if it exists."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent)
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        share(path)


def refuse_locked(folder: Path) -> None:
    """Raise ``PermissionError`` if this user may not delete everything in a folder."""
    for inner, _, _ in os.walk(folder):
        if not os.access(inner, os.W_OK | os.X_OK):
            raise PermissionError(13, os.strerror(13), inner)
