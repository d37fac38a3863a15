"""How large the features of a corpus are, for each dtype and each choice of frames."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...cache import DTYPES, EntrySpec
from ..encoders.frame_means import ALL, MEAN, FrameMeans


@dataclass(frozen=True)
class CacheSize:
    """The size of the features in one form."""

    frames: str
    """As in ``--frames``: ``all``, ``mean`` or a number."""
    dtype: str
    """As in ``--dtype``."""
    bytes: int
    """Size on the disk without compression and without the tables of ids, in bytes."""


def sizes_of(spec: EntrySpec, frames: Sequence[int], chosen: FrameMeans) -> list[CacheSize]:
    """Return the sizes for all dtypes; for all frames, for ``chosen``, and for one mean each.

    ``frames`` is the number of frames of each utterance.
    """
    texts = dict.fromkeys((ALL, chosen.text, MEAN))
    stored = {text: sum(map(FrameMeans(text).count, frames)) for text in texts}
    return [
        CacheSize(text, dtype, count * replace(spec, dtype=dtype).bytes_per_frame)
        for text, count in stored.items()
        for dtype in DTYPES
    ]


def size_lines(sizes: Sequence[CacheSize]) -> list[str]:
    """Return the sizes as a table: a line for each choice of frames, a column for each dtype."""
    rows: dict[str, list[str]] = {}
    for size in sizes:
        rows.setdefault(f"--frames {size.frames}", []).append(f"{size.bytes / 1e6:.1f}")
    header = {"MB for all utterances": list(dict.fromkeys(size.dtype for size in sizes))}
    return [
        f"    {name:<22}" + "".join(f"{cell:>11}" for cell in cells)
        for name, cells in (header | rows).items()
    ]
