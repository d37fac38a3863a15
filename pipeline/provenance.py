"""Provenance: the command, user, host and package versions of a run."""

import getpass
import platform
import shlex
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def provenance(packages: Iterable[str], **facts: Any) -> dict[str, Any]:
    """Return the facts needed to repeat this run, as JSON values, and the given ``facts``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container, a user may have a number and no name
        user = None
    return {
        "command": shlex.join(sys.argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "user": user,
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages if _is_installed(name)},
        **facts,
    }


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
