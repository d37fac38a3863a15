"""Verification: is every byte of an entry what it was when it was written?"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..entry import Entry
from ..errors import CacheError
from ..identity import EntrySpec
from ..index import FILE, Index
from ..shard import checksum, open_shard, read_rows, stored_hash
from ..storage.folder import Folder
from ..writer import EntryWriter


@dataclass(frozen=True)
class Damage:
    """What is wrong with one file or shard of an entry.

    ``lost`` are the utterances whose features are not what they were, or cannot be read; ``whole``
    are those of the same shard that are as they were.
    """

    what: str
    reason: str
    lost: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()


@dataclass
class Verification:
    """What was looked at in an entry, and what was found.

    ``unread`` says what could not be looked at, each in a sentence. It may be whole, so that a
    repair leaves it alone.
    """

    entry: str
    shards: int = 0
    utterances: int = 0
    of_shards: int = 0
    damage: list[Damage] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    repaired: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the result as a person wants to read it."""
        looked = (
            f"{self.shards} shards"
            if self.shards == self.of_shards
            else (f"{self.shards} of {self.of_shards} shards, chosen at random")
        )
        found = f"{len(self.damage)} damaged" if self.damage else "all as written"
        found = f"{found}, {len(self.unread)} not read" if self.unread else found
        lines = [f"{self.entry}: {looked}, {self.utterances} utterances, {found}"]
        lines += [f"  {one}" for one in self.unread]
        for one in self.damage:
            lines.append(f"  {one.what}: {one.reason}")
            if one.lost:
                lines.append(f"    lost: {_some(one.lost)}")
            if one.whole:
                lines.append(f"    whole: {len(one.whole)} more utterances of it")
        if self.damage:
            lines.append(
                "  repaired: what was whole is kept, and the next 'mser extract' makes the rest"
                if self.repaired
                else "  'mser cache verify --repair' keeps what is whole and drops the rest, which "
                "the next 'mser extract' makes again"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class Verifications:
    """What was found in several entries."""

    entries: tuple[Verification, ...]

    @property
    def damaged(self) -> bool:
        """Whether anything is damaged and was not repaired, or could not be read."""
        return any(one.unread or (one.damage and not one.repaired) for one in self.entries)

    def as_json(self) -> dict[str, Any]:
        """Return the results as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the results as a person wants to read them."""
        return "\n".join(map(str, self.entries)) or "there is no entry to verify"


def verify_all(folders: Iterable[Folder], sample: float, **how: Any) -> Verifications:
    """Verify several entries as :meth:`FeatureCache.places` gives them; see :func:`verify`.

    An entry that was never published is left out: nobody reads it, and its run will go on.
    """
    found = []
    for folder in folders:
        if "entry.json" in folder.names():
            try:
                found.append(verify(folder, sample, **how))
            except CacheError as error:
                found.append(Verification(str(folder), unread=[str(error)]))
    return Verifications(tuple(found))


def verify(
    folder: Folder,
    sample: float = 1.0,
    *,
    repair: bool = False,
    each: Callable[[list[str]], Iterable[str]] = list,
) -> Verification:
    """Read an entry's shards, or a random part ``sample`` of them, and compare all hashes.

    With ``repair``, the utterances of a damaged shard that are whole are written again, the shard
    is deleted, and the entry is published without what is lost. ``each`` is given the names of the
    shards and goes through them, to show how far it is.

    Raises:
        CacheError: the entry's ``entry.json`` is damaged, so that nothing can be told of the rest.
    """
    try:
        entry = Entry(folder)
    except FileNotFoundError:
        raise CacheError(f"{folder} was never published: run the extraction again") from None
    writer = EntryWriter(folder, entry.spec, {})
    result = Verification(str(folder))
    there = writer.shards()
    index = _index(entry, writer, there, result.damage)
    shards = sorted({*there, *index.shards()})
    result.of_shards = len(shards)
    if sample < 1 and shards:
        shards = sorted(random.sample(shards, max(1, round(sample * len(shards)))))
    for name in each(shards):
        rows = {row["id"]: row for row in index.within([name]).to_pylist()}
        result.shards += 1
        result.utterances += len(rows)
        if name not in there:
            result.damage.append(Damage(name, "it is missing", tuple(rows)))
            continue
        try:
            result.damage += _damage(entry, name, rows)
        except CacheError as error:
            result.unread.append(str(error))
    if repair and result.damage:
        _repair(writer, index, result.damage)
        result.repaired = True
    return result


def as_written(shards: Folder, name: str) -> bool:
    """Return whether a shard's bytes are those of which its name is the hash."""
    return stored_hash(shards, name) == name.partition("-")[2].partition(".")[0]


def _index(entry: Entry, writer: EntryWriter, there: list[str], damage: list[Damage]) -> Index:
    """Return the index of all that lies in the entry, published or not."""
    try:
        published = entry.index.shards()
    except CacheError as error:
        damage.append(Damage(entry.index_name, str(error)))
        return writer.current(there, anew=True)
    return writer.current(sorted({*there, *published}))


def _damage(entry: Entry, name: str, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[Damage]:
    """Say what is wrong with a shard, of which the index says ``rows``.

    Raises:
        CacheError: the shard cannot be read, whatever is in it.
    """
    shards = entry.folder / "shards"
    reason = "its bytes are not those that were written"
    try:
        if as_written(shards, name):
            inside = {row["id"]: row for row in read_rows(shards, name).to_pylist()}
            wrong = tuple(id for id, row in rows.items() if inside.get(id) != row)
            if wrong:
                yield Damage(entry.index_name, f"it does not say what shard {name} says", wrong)
            return
    except FileNotFoundError:
        reason = "a part of it is missing"
    lost = [id for id, row in rows.items() if not _whole(shards, name, row, entry.spec)]
    whole = rows.keys() - set(lost)
    yield Damage(name, reason, tuple(lost), tuple(sorted(whole)))


def _whole(shards: Folder, name: str, row: Mapping[str, Any], spec: EntrySpec) -> bool:
    start, stop = row["offset"], row["offset"] + row["length"]
    try:
        array = open_shard(shards, name, spec)
        states = array.read(slice(None), start, stop)
    except Exception:  # a decoder may make anything of damaged bytes
        return False
    return states.shape[1] == stop - start and checksum(states) == str(row["checksum"])


def _repair(writer: EntryWriter, index: Index, damage: list[Damage]) -> None:
    """Write again what is whole, publish without the damaged shards, then delete them."""
    writer.prepare()  # a copy of a cache may lack its empty folders
    damaged = {one.what for one in damage} & set(writer.shards())
    for one in damage:
        if one.whole:
            rows = index.within([one.what]).to_pylist()
            writer.like(one.what).rewrite_shard(
                one.what, [row for row in rows if row["id"] in set(one.whole)]
            )
    indexes = {one.what for one in damage if FILE.fullmatch(one.what)}
    for name in indexes:  # or it would stay where the new one has the same name
        writer.folder.remove(name)
    writer.publish(without=damaged, anew=bool(indexes))
    for name in damaged:
        (writer.folder / "shards").remove(name)


def _some(ids: tuple[str, ...]) -> str:
    shown = ", ".join(ids[:10])
    return f"{shown} and {len(ids) - 10} more" if len(ids) > 10 else shown
