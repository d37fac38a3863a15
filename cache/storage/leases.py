"""Leases: who is working on what, so that several processes on several hosts share the work.

A lease is a file made by exclusive creation, which works on NFS and on object stores where locks do
not. Its holder writes it anew every few seconds; a lease whose heart has stopped is taken over by
exclusive creation of the next generation of it. Clocks may differ by a minute. A lease only saves
work: if two hold one by mischance, both write the same features, and one copy counts.
"""

import json
import os
import platform
import random
import re
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..errors import CacheError
from .folder import Folder

HEARTBEAT = 20.0  # seconds
DEAD_AFTER = 180.0  # without a heartbeat; a minute of it is for clocks that differ
_POLL = 0.5
_NAME = re.compile(r"(?P<work>[A-Za-z0-9-]+)\.(?P<generation>[0-9]{4})\.json")


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
        if self.host == _host() and not _runs(self.process):
            return False
        return abs(time.time() - self.beat) < DEAD_AFTER


@contextmanager
def lease(leases: Folder, work: str, patience: float = 0.0) -> Iterator[bool]:
    """Hold the lease of ``work`` for the time of the context, and say whether that is so.

    ``False`` means that another process is at work on it, and was for ``patience`` seconds.
    """
    deadline, pause = time.monotonic() + patience, _POLL / 64
    while (taken := _taken(leases, work)) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            yield False
            return
        time.sleep(min(pause, left))
        pause = min(2 * pause, _POLL)
    name, mine = taken
    stopped = threading.Event()
    heart = threading.Thread(target=_beat, args=(leases, name, mine, stopped), daemon=True)
    heart.start()
    try:
        yield True
    finally:
        stopped.set()
        heart.join()
        _drop(leases, name, mine)


def held(leases: Folder) -> dict[str, Lease | None]:
    """Return all leases by the name of their file; ``None`` is one that cannot be read."""
    return {name: _read(leases, name) for name in leases.names() if _NAME.fullmatch(name)}


def _taken(leases: Folder, work: str) -> tuple[str, Lease] | None:
    """Try to take a lease, and return its file's name and content."""
    while not _alive(leases, there := _generations(leases, work)):
        now = time.time()
        mine = Lease(_host(), os.getpid(), now, now)
        name = f"{work}.{1 + max(map(_generation, there), default=-1):04}.json"
        if not leases.create(name, _content(mine)):
            return None
        # What was there may have gone meanwhile, and another process have come to another name.
        # At least one of the two sees the other now, and gives way.
        others = [one for one in _generations(leases, work) if one != name]
        if not _alive(leases, others) and _is(leases, name, mine):
            with suppress(CacheError):  # dead ones are in nobody's way
                for one in others:
                    leases.remove(one)
            return name, mine
        _drop(leases, name, mine)
        time.sleep(random.uniform(0, _POLL / 10))  # noqa: S311 -- no secret
    return None


def _beat(leases: Folder, name: str, mine: Lease, stopped: threading.Event) -> None:
    while not stopped.wait(HEARTBEAT):
        # A process that was stopped for long may find its lease in other hands.
        if _is(leases, name, mine):
            with suppress(CacheError):  # the work itself will say that the file system is gone
                leases.write(name, _content(replace(mine, beat=time.time())))


def _drop(leases: Folder, name: str, mine: Lease) -> None:
    if _is(leases, name, mine):
        with suppress(CacheError):  # a lease that stays behind is taken over
            leases.remove(name)


def _is(leases: Folder, name: str, mine: Lease) -> bool:
    found = _read(leases, name)
    return found is not None and replace(found, beat=mine.beat) == mine


def _alive(leases: Folder, names: Iterable[str]) -> bool:
    return any(one is not None and one.alive for one in (_read(leases, name) for name in names))


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
        said = json.loads(leases.read(name))
        beats = float(said["since"]), float(said["beat"])
        return Lease(str(said["host"]), int(said["process"]), *beats)
    except (CacheError, FileNotFoundError):
        return None
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _host() -> str:
    """Return a name of where a process number means one process: containers count their own."""
    with suppress(OSError):
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    return platform.node()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # it runs, and is somebody else's
    with suppress(OSError):  # or it has ended, and nobody has asked how
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True
