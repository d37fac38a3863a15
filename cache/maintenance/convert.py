"""Conversion of an entry between formats and compressions, shard by shard."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ..entry import Entry
from ..shard import check_form
from ..writer import EntryWriter


@dataclass(frozen=True)
class Conversion:
    """What was converted: how many of an entry's shards were not yet in the form asked for."""

    entry: str
    store: str
    compression: str
    converted: int
    shards: int

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the result as a person wants to read it."""
        said = f"{self.entry}: {self.converted} of {self.shards} shards written again as"
        said = f"{said} {self.store}, compression {self.compression}"
        if self.converted:
            said += "; the old ones stay for those who still read them, until 'mser cache gc'"
        return said


def convert(
    entry: Entry,
    store: str,
    compression: str,
    each: Callable[[list[str]], Iterable[str]] = list,
) -> Conversion:
    """Write every shard again that is not in the format and compression asked for, and publish.

    Features, hashes and provenance stay as they are. Shards of both formats may lie in one entry,
    so it can be read all the time and by whoever opened it before, and a conversion that is killed
    may be started again. The old shards stay until ``gc``.

    Raises:
        CacheError: there is no such format, a shard is damaged, or the cache cannot be written to.
    """
    check_form(store, compression)
    writer = EntryWriter(entry.folder, entry.spec, {}, store, compression)
    writer.prepare()  # a copy of a cache may lack its empty folders
    names = entry.index.shards()
    old = [name for name in names if writer.like(name) != writer]
    for name in each(old):
        writer.rewrite_shard(name, entry.index.within([name]).to_pylist())
    writer.publish()
    return Conversion(str(entry.folder), store, compression, len(old), len(names))
