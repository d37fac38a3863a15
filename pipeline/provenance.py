"""Who ran what, where and with which packages: what an entry keeps of the runs that filled it."""

import getpass
import platform
import shlex
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any


def provenance(packages: Iterable[str], **facts: Any) -> dict[str, Any]:
    """Return what is needed to repeat this run, with the versions of ``packages``, as JSON."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        user = None
    return {
        "command": shlex.join(sys.argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "user": user,
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        **facts,
    }
