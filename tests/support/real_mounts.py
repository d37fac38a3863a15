"""File systems of clusters that a test mounts for real, where the packages are there."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mser.tests.support.real_systems import ON_DEMAND, WANTED

_SERVER = next(
    (
        path
        for path in ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")
        if Path(path).exists()
    ),
    None,
)
needs_sshfs = pytest.mark.skipif(
    not WANTED
    or os.geteuid() != 0
    or not shutil.which("sshfs")
    or not _SERVER
    or not Path("/dev/fuse").exists(),
    reason=f"needs root, /dev/fuse, sshfs and openssh-sftp-server; {ON_DEMAND}",
)


@dataclass(frozen=True)
class Sshfs:
    """A folder, and the mount that shows it through sshfs."""

    behind: Path
    mount: Path


@contextmanager
def mounted_sshfs(folder: Path) -> Iterator[Sshfs]:
    """Mount a new folder through sshfs; the server is a child of sshfs and needs no network."""
    behind, mount, ssh = folder / "behind", folder / "mount", folder / "ssh"
    behind.mkdir()
    mount.mkdir()
    ssh.write_text(f"#!/bin/sh\nexec {_SERVER}\n")
    ssh.chmod(0o755)
    subprocess.run(
        ["sshfs", "-o", f"ssh_command={ssh}", f"nowhere:{behind}", str(mount)],
        check=True,
        timeout=60,
    )
    try:
        yield Sshfs(behind, mount)
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True, timeout=60)
