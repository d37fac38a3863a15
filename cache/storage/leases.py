"""Leases: several processes on several hosts share work without doing it twice.

A lease is a file made by exclusive creation, which works on NFS and on object stores, where locks
do not. Its holder rewrites it every few seconds, the heartbeat. A process that sees no new
heartbeat for three minutes, by its own stopwatch, takes the lease over by exclusive creation of its
next generation. The clocks of the hosts are not compared. A lease only saves work: if two processes
hold the same lease, both write the same features, and one copy is used.
"""

import json
import math
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
DEAD_AFTER = 180.0  # seconds without a new heartbeat; NFS may show an old one for a minute
_FORGOTTEN = 3600.0  # seconds
_POLL = 0.5  # seconds
_held: dict[threading.Event, tuple[Folder, str, "Lease"]] = {}
_refused = threading.Event()
_NAME = re.compile(r"(?P<work>[A-Za-z0-9-]+)\.(?P<generation>[0-9]{4})\.json")


@dataclass(frozen=True)
class Lease:
    """The holder of a lease."""

    host: str
    """Name of the host and of its process namespace."""
    process: int
    """Process number of the holder."""
    since: float
    """When the holder acquired the lease (seconds since 1970)."""
    beat: float
    """Time of the last heartbeat by the holder's clock (seconds since 1970)."""

    @property
    def ended(self) -> bool:
        """Whether the holder was a process of this host that has ended."""
        return self.host == _host() and not _is_running(self.process)

    @property
    def alive(self) -> bool:
        """Whether the holder may still be running, as far as one look can tell.

        Its last heartbeat is less than an hour ago, if the clocks of the two hosts are equal.
        """
        return not self.ended and abs(time.time() - self.beat) < _FORGOTTEN


# When this process first saw the latest heartbeat of a lease (seconds of its own stopwatch).
_watched: dict[tuple[Folder, str], tuple[Lease, float]] = {}


@contextmanager
def lease(leases: Folder, work: str, patience: float = 0.0) -> Iterator[bool]:
    """Try to acquire the lease of ``work``; the context yields whether it succeeded.

    ``False`` means that another process held the lease for ``patience`` seconds.
    """
    deadline, pause = time.monotonic() + patience, _POLL / 64
    while (acquired := _acquire(leases, work)) is None:
        left = deadline - time.monotonic()
        if left <= 0 or _refused.is_set():
            yield False
            return
        time.sleep(min(pause, left))
        pause = min(2 * pause, _POLL)
    name, own, stopped = acquired
    heart = threading.Thread(target=_keep_alive, args=(leases, name, own, stopped), daemon=True)
    heart.start()
    try:
        yield True
    finally:
        stopped.set()
        heart.join()
        _release(leases, name, own)
        _held.pop(stopped, None)


def return_leases(*, refuse: bool = False) -> None:
    """Release all leases of this process, which is about to end while its threads still work.

    With ``refuse``, the process gets no lease any more: its threads may still begin other work.
    """
    if refuse:
        _refused.set()
    for stopped, (leases, name, own) in list(_held.items()):
        stopped.set()
        with suppress(OSError, CacheError):  # others take over a lease that stays behind
            _release(leases, name, own)


def read_leases(leases: Folder) -> dict[str, Lease | None]:
    """Return all leases by the name of their file; one that cannot be read is ``None``."""
    return {name: _read(leases, name) for name in leases.names() if _NAME.fullmatch(name)}


def _acquire(leases: Folder, work: str) -> tuple[str, Lease, threading.Event] | None:
    """Try to acquire a lease; return the name and the content of its file, and its end."""
    while not _any_alive(leases, existing := _generations(leases, work)):
        now = time.time()
        own = Lease(_host(), os.getpid(), now, now)
        name = f"{work}.{1 + max(map(_generation, existing), default=-1):04}.json"
        # Noted before the file exists: a signal may end this function at any line.
        stopped = threading.Event()
        _held[stopped] = leases, name, own
        if not leases.create(name, _content(own)):
            del _held[stopped]
            return None
        # The existing files may have been deleted since, and another process may have created a
        # file of another name. At least one of the two now sees the other and gives way.
        others = [other for other in _generations(leases, work) if other != name]
        alone = not _any_alive(leases, others) and _is_own(leases, name, own)
        ending = stopped.is_set() or _refused.is_set()
        if alone and not ending:
            with suppress(CacheError):  # files of dead holders do no harm
                for other in others:
                    leases.remove(other)
            return name, own, stopped
        _release(leases, name, own)
        del _held[stopped]
        if ending:
            return None
        time.sleep(random.uniform(0, _POLL / 10))  # noqa: S311 -- not for security
    return None


def _keep_alive(leases: Folder, name: str, own: Lease, stopped: threading.Event) -> None:
    while not stopped.wait(HEARTBEAT):
        # If this process was suspended for long, another one may have taken the lease over.
        if _is_own(leases, name, own):
            with suppress(CacheError):  # the work itself reports a lost file system
                leases.write(name, _content(replace(own, beat=time.time())))


def _release(leases: Folder, name: str, own: Lease) -> None:
    if _is_own(leases, name, own):
        with suppress(CacheError):  # others take over a lease that stays behind
            leases.remove(name)


def _is_own(leases: Folder, name: str, own: Lease) -> bool:
    stored = _read(leases, name)
    return stored is not None and replace(stored, beat=own.beat) == own


def _any_alive(leases: Folder, names: Iterable[str]) -> bool:
    alive = [_may_be_alive(leases, name) for name in names]  # all of them, so all are watched
    return any(alive)


def _may_be_alive(leases: Folder, name: str) -> bool:
    """Return whether a lease has a holder whose heartbeat has not stopped."""
    stored, now = _read(leases, name), time.monotonic()
    if stored is None or stored.ended:
        _watched.pop((leases, name), None)
        return False
    seen, since = _watched.get((leases, name), (None, now))
    if seen != stored:
        _watched[leases, name] = stored, now
        return True
    return now - since < DEAD_AFTER


def _generations(leases: Folder, work: str) -> list[str]:
    matches = (_NAME.fullmatch(name) for name in leases.names())
    return [match.group() for match in matches if match and match["work"] == work]


def _generation(name: str) -> int:
    match = _NAME.fullmatch(name)
    return int(match["generation"]) if match else 0


def _content(own: Lease) -> bytes:
    return json.dumps(asdict(own)).encode()


def _read(leases: Folder, name: str) -> Lease | None:
    try:
        stored = json.loads(leases.read(name))
        times = float(stored["since"]), float(stored["beat"])
        if not all(map(math.isfinite, times)):
            return None
        return Lease(str(stored["host"]), int(stored["process"]), *times)
    except (CacheError, FileNotFoundError):
        return None
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _host() -> str:
    """Return a name of the host and its process namespace: containers count their own."""
    with suppress(OSError):
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    return platform.node()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # alive, owned by another user
    with suppress(OSError):  # ``Z`` is a zombie: the process has ended and was not reaped
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True
