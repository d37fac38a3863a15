"""Times of writing, which order the copies of an utterance: of two copies, the later one counts.

A clock alone cannot order them, because the clocks of two hosts differ, and a clock may be set. The
time of a shard is therefore later than that of every shard its writer had seen: the time of the
clock, or if that is earlier, the latest time seen and a microsecond. This is a hybrid logical clock
(Kulkarni et al., "Logical Physical Clocks", 2014) with one number instead of two.
"""

import time
from datetime import UTC, datetime, timedelta


def now() -> str:
    """Return the time of this host's clock (ISO 8601, UTC)."""
    return _text(datetime.fromtimestamp(time.time(), UTC))


def time_after(seen: str) -> str:
    """Return a time of writing that is later than ``seen``, compared as text.

    ``seen`` is a time of writing of a shard, also that of a rewritten one, or an empty text.
    """
    if (time_now := now()) > seen:
        return time_now
    later = ""
    try:
        original = datetime.fromisoformat(seen.partition("/")[0])
        later = _text(original.astimezone(UTC) + timedelta(microseconds=1))
    except (ValueError, OverflowError):
        pass  # mser does not write such a time
    return later if later > seen else f"{seen}~"


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")
