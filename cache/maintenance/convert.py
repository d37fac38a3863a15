"""Conversion of an entry between formats and compressions, shard by shard."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ..entry import Entry
from ..formats import check_form
from ..writer import EntryWriter


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion."""

    entry: str
    """The folder of the entry."""
    store: str
    """The new format."""
    compression: str
    """The new compression."""
    converted: int
    """The number of shards that were written again."""
    shards: int
    """The number of all shards of the entry."""

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the result as a sentence."""
        text = f"{self.entry}: {self.converted} of {self.shards} shards written again as"
        text = f"{text} {self.store}, compression {self.compression}"
        if self.converted:
            text += "; running jobs may still read the old shards, 'mser cache gc' deletes them"
        return text


def convert(
    entry: Entry,
    store: str,
    compression: str,
    each: Callable[[list[str]], Iterable[str]] = list,
) -> Conversion:
    """Write every shard again that has another format or compression, and publish the entry.

    Features, hashes and provenance stay the same. An entry may hold shards of both formats, so it
    is readable all the time, also for readers that opened it before. A killed conversion may be
    started again. The old shards stay until ``gc``. ``each`` gets the names of the shards and
    yields them one by one, to show the progress.

    Raises:
        DamagedError: a shard is damaged.
        CacheError: there is no such format or compression, or the cache cannot be written.
    """
    check_form(store, compression)
    writer = EntryWriter(entry.folder, entry.spec, {}, store, compression)
    writer.prepare()  # a copy of a cache may lack its empty folders
    names = entry.index.shards()
    old = [name for name in names if writer.with_form_of(name) != writer]
    for name in each(old):
        writer.rewrite_shard(name, entry.index.rows_in([name]).to_pylist())
    writer.publish()
    return Conversion(str(entry.folder), store, compression, len(old), len(names))
