"""The features of one encoder on several corpora, as those of one."""

from collections.abc import Iterable, Mapping
from typing import Any

from ...cache import Entry
from ...cache.formats.arrays import Array


class JoinedEntry(Entry):
    """The features of one encoder on several corpora; it reads, and is nowhere in the cache.

    ``of_corpus`` are the entries by the name of the corpus. They have the same key.
    """

    def __init__(self, of_corpus: Mapping[str, Entry]) -> None:
        self.of_corpus = dict(of_corpus)
        self.first = next(iter(self.of_corpus.values()))
        self.spec = self.first.spec
        self.folder = self.first.folder

    def __reduce__(self) -> tuple[Any, ...]:
        return JoinedEntry, (self.of_corpus,)

    def __contains__(self, id: object) -> bool:
        corpus, _, own = str(id).partition("/")
        return corpus in self.of_corpus and own in self.of_corpus[corpus]

    def __getitem__(self, id: str) -> Array:
        entry, own = self._own(id)
        return entry[own]

    def read(self, ids: Iterable[str], layers: Iterable[int] | None = None) -> list[Array]:
        """See :meth:`Entry.read`."""
        wanted, numbers = list(ids), None if layers is None else list(layers)
        arrays: dict[str, Array] = {}
        for corpus, entry in self.of_corpus.items():
            own = [id for id in wanted if id.partition("/")[0] == corpus]
            read = entry.read([id.partition("/")[2] for id in own], numbers)
            arrays |= dict(zip(own, read, strict=True))
        return [arrays[id] for id in wanted]

    def length(self, id: str) -> int:
        """See :meth:`Entry.length`."""
        entry, own = self._own(id)
        return entry.length(own)

    def checksum(self, id: str) -> str:
        """See :meth:`Entry.checksum`."""
        entry, own = self._own(id)
        return entry.checksum(own)

    def _own(self, id: str) -> tuple[Entry, str]:
        corpus, _, own = id.partition("/")
        return self.of_corpus[corpus], own
