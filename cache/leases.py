"""Leases: who is working on what, so that several processes on several hosts share the work.

A lease is a file made by exclusive creation, which works on NFS and on object stores where locks do
not. Its holder writes it anew every few seconds; a lease whose heart has stopped is taken over by
exclusive creation of the next generation of it. Clocks may differ by a minute. A lease only saves
work: if two hold one by mischance, both write the same features, and one copy counts.
"""

import json
import os
import platform
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace

from .errors import CacheError
from .folder import Folder

HEARTBEAT = 20.0  # seconds
DEAD_AFTER = 180.0  # without a heartbeat; a minute of it is for clocks that differ
_POLL = 0.5
_NAME = re.compile(r"(?P<work>.+)\.(?P<generation>[0-9]{4})\.json")


@dataclass(frozen=True)
class Lease:
    """Who holds a lease, since when, and when they were last alive (seconds since 1970)."""

    host: str
    process: int
    since: float
    beat: float

    @property
    def alive(self) -> bool:
        """Whether its holder may still be at work."""
        if self.host == platform.node() and not _runs(self.process):
            return False
        return time.time() - self.beat < DEAD_AFTER


@contextmanager
def lease(leases: Folder, work: str, patience: float = 0.0) -> Iterator[bool]:
    """Hold the lease of ``work`` for the time of the context, and say whether that is so.

    ``False`` means that another process is at work on it, and was for ``patience`` seconds.
    """
    deadline = time.monotonic() + patience
    while (name := _taken(leases, work)) is None:
        if time.monotonic() >= deadline:
            yield False
            return
        time.sleep(min(_POLL, patience))
    stopped = threading.Event()
    heart = threading.Thread(target=_beat, args=(leases, name, stopped), daemon=True)
    heart.start()
    try:
        yield True
    finally:
        stopped.set()
        heart.join()
        with suppress(CacheError):  # a lease that stays behind is taken over
            for other in sorted(_generations(leases, work)):
                if other <= name:
                    leases.remove(other)


def held(leases: Folder) -> dict[str, Lease | None]:
    """Return all leases by the name of their file; ``None`` is one that cannot be read."""
    return {name: _read(leases, name) for name in leases.names() if _NAME.fullmatch(name)}


def _taken(leases: Folder, work: str) -> str | None:
    """Try to take a lease, and return the name of its file."""
    there = _generations(leases, work)
    if there:
        newest = _read(leases, max(there))
        if newest is not None and newest.alive:
            return None
    now = time.time()
    mine = Lease(platform.node(), os.getpid(), now, now)
    name = f"{work}.{1 + max(map(_generation, there), default=-1):04}.json"
    return name if leases.create(name, _content(mine)) else None


def _beat(leases: Folder, name: str, stopped: threading.Event) -> None:
    mine = _read(leases, name)
    while mine and not stopped.wait(HEARTBEAT):
        with suppress(CacheError):  # the work itself will say that the file system is gone
            leases.write(name, _content(replace(mine, beat=time.time())))


def _generations(leases: Folder, work: str) -> list[str]:
    found = (_NAME.fullmatch(name) for name in leases.names())
    return [match.group() for match in found if match and match["work"] == work]


def _generation(name: str) -> int:
    match = _NAME.fullmatch(name)
    return int(match["generation"]) if match else 0


def _content(one: Lease) -> bytes:
    return json.dumps(asdict(one)).encode()


def _read(leases: Folder, name: str) -> Lease | None:
    try:
        return Lease(**json.loads(leases.read(name)))
    except (CacheError, FileNotFoundError, ValueError, TypeError):
        return None


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it runs, and is somebody else's
    return True
