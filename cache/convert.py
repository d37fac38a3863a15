"""Conversion of an entry between formats and compressions, shard by shard."""

from collections.abc import Callable, Iterable

from .entry import Entry
from .writer import EntryWriter


def convert(
    entry: Entry,
    store: str,
    compression: str,
    each: Callable[[list[str]], Iterable[str]] = list,
) -> int:
    """Write every shard again in another format, publish, and return how many there were.

    Features, hashes and provenance stay as they are. Shards of both formats may lie in one entry,
    so it can be read all the time and by whoever opened it before, and a conversion that is killed
    may be started again. The old shards stay until ``gc``.

    Raises:
        CacheError: a shard is damaged, or the cache cannot be written to.
    """
    writer = EntryWriter(entry.folder, entry.spec, {}, store, compression)
    old = [name for name in entry.index.shards() if writer.like(name) != writer]
    for name in each(old):
        writer.rewrite_shard(name, entry.index.within([name]).to_pylist())
    writer.publish()
    return len(old)
