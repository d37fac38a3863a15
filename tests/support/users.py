"""For tests with several users: code that turns a fork of root into another user.

Python itself may be in a folder of root, such as /root/.pyenv, that nobody else can reach. The fork
then mounts Python's folder once more, in a mount namespace of its own.
"""

import os
from pathlib import Path

import pytest

import mser
from mser.tests.support.cache_processes import works

BECOME = """
import ctypes, os, subprocess, sys, tempfile
from pathlib import Path

group, user, umask = {group}, {user}, {umask}
python = Path(sys.base_prefix)
hidden = [folder for folder in python.parents if not folder.stat().st_mode & 1]
if hidden:
    assert ctypes.CDLL(None).unshare(0x20000) == 0  # CLONE_NEWNS
    def mount(*arguments):
        subprocess.run(["mount", *map(str, arguments)], check=True)
    mount("--make-rprivate", "/")
    aside = tempfile.mkdtemp(dir="/mnt")
    mount("--bind", python, aside)
    mount("-t", "tmpfs", "-o", "mode=755", "none", hidden[-1])
    python.mkdir(parents=True)
    mount("--move", aside, python)
    os.rmdir(aside)
os.setgroups([])
os.setgid(group)
os.setuid(user)
os.umask(umask)
"""

_readable = all(folder.stat().st_mode & 1 for folder in Path(mser.__file__).parents)
only_root = pytest.mark.skipif(
    os.geteuid() != 0 or not _readable or not works("unshare", "--mount", "true"),
    reason="only root can become another user, who must be able to read mser",
)


def become(user: int, group: int, umask: int = 0o022) -> str:
    """Return code that makes the process that of a user of a group."""
    return BECOME.format(user=user, group=group, umask=umask)
