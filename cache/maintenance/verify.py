"""Verify that every byte of an entry is as it was written, and repair damage."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from ..entry import Entry
from ..errors import CacheError, DamagedError, NoAccessError, NotFoundError
from ..identity import EntrySpec
from ..index import FILE, Index
from ..scale import FILE as SCALE
from ..scale_file import has_scale
from ..shard import checksum, open_shard, read_facts, read_rows, stored_hash
from ..storage.folder import Folder
from ..writer import EntryWriter


@dataclass(frozen=True)
class Damage:
    """Damage of one shard or of the index."""

    what: str
    """Name of the shard or of the index."""
    reason: str
    """What is damaged."""
    lost: tuple[str, ...] = ()
    """The utterances whose features have changed or cannot be read."""
    whole: tuple[str, ...] = ()
    """The undamaged utterances of the same shard."""


@dataclass
class Verification:
    """The result of verifying one entry."""

    entry: str
    """The folder of the entry."""
    shards: int = 0
    """Number of shards that were read."""
    utterances: int = 0
    """Number of utterances in these shards."""
    of_shards: int = 0
    """Number of all shards of the entry."""
    damage: list[Damage] = field(default_factory=list)
    """All damage that was found."""
    unread: list[str] = field(default_factory=list)
    """A sentence for each shard that could not be read, which a repair leaves as it is, and for a
    repair that this user may not do."""
    repaired: bool = False
    """Whether the damage was repaired."""

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the result as a list of lines."""
        read = f"{self.shards} shards"
        if self.shards != self.of_shards:
            read = f"{self.shards} of {self.of_shards} shards, chosen at random"
        result = f"{len(self.damage)} damaged" if self.damage else "all as written"
        result = f"{result}, {len(self.unread)} not read" if self.unread else result
        lines = [f"{self.entry}: {read}, {self.utterances} utterances, {result}"]
        lines += [f"  {sentence}" for sentence in self.unread]
        for damage in self.damage:
            lines.append(f"  {damage.what}: {damage.reason}")
            if damage.lost:
                lines.append(f"    lost: {_some(damage.lost)}")
            if damage.whole:
                lines.append(f"    undamaged: {len(damage.whole)} other utterances of the shard")
        if self.damage:
            lines.append(
                "  repaired: the undamaged utterances are kept, and the next 'mser extract' "
                "extracts the lost ones again"
                if self.repaired
                else "  'mser cache verify --repair' keeps the undamaged utterances and removes "
                "the lost ones, which the next 'mser extract' extracts again"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class Verifications:
    """The results of verifying several entries."""

    entries: tuple[Verification, ...]
    """The result of each entry."""

    @property
    def damaged(self) -> bool:
        """Whether a shard could not be read, or is damaged and was not repaired."""
        return any(entry.unread or (entry.damage and not entry.repaired) for entry in self.entries)

    def as_json(self) -> dict[str, Any]:
        """Return the results as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the results as a list of lines."""
        return "\n".join(map(str, self.entries)) or "there is no entry to verify"


def verify_all(folders: Iterable[Folder], sample: float, **options: Any) -> Verifications:
    """Verify the entries in ``folders``, of :meth:`FeatureCache.entry_folders`.

    ``options`` are those of :func:`verify`. An entry that was never published is left out: nothing
    reads it, and the next run continues it.
    """
    results = []
    for folder in folders:
        try:
            if "entry.json" in folder.names():
                results.append(verify(folder, sample, **options))
        except CacheError as error:
            results.append(Verification(str(folder), unread=[str(error)]))
    return Verifications(tuple(results))


def verify(
    folder: Folder,
    sample: float = 1.0,
    *,
    repair: bool = False,
    each: Callable[[list[str]], Iterable[str]] = list,
) -> Verification:
    """Read an entry's shards, or a random part ``sample`` of them, and compare all hashes.

    With ``repair``, the undamaged utterances of a damaged shard are written again, the shard is
    deleted, and the entry is published without the lost utterances; where this user may not write,
    the damage stays and the result says so. ``each`` gets the names of the
    shards and yields them one by one, to show the progress.

    Raises:
        NotFoundError: the entry was never published.
        DamagedError: ``entry.json`` is damaged, so the shards cannot be verified.
    """
    try:
        entry = Entry(folder)
    except FileNotFoundError:
        raise NotFoundError(f"{folder} was never published: run the extraction again") from None
    writer = EntryWriter(folder, entry.spec, {})
    result = Verification(str(folder))
    stored = writer.shards()
    index = _index(entry, writer, stored, result.damage)
    shards = sorted({*stored, *index.shards()})
    result.of_shards = len(shards)
    scale = _scale(entry, result.damage) if shards else ""
    if sample < 1 and shards and scale is not None:
        shards = sorted(random.sample(shards, max(1, round(sample * len(shards)))))
    for name in each(shards):
        rows = {row["id"]: row for row in index.rows_in([name]).to_pylist()}
        result.shards += 1
        result.utterances += len(rows)
        if name not in stored:
            result.damage.append(Damage(name, "it is missing", tuple(rows)))
            continue
        try:
            result.damage += _damage(entry, name, rows, scale)
        except CacheError as error:
            result.unread.append(str(error))
    if repair and result.damage:
        try:
            _repair(writer, index, result.damage)
        except NoAccessError as error:
            result.unread.append(f"it cannot be repaired: {error}")
        else:
            result.repaired = True
    return result


def is_as_written(shards: Folder, name: str) -> bool:
    """Return whether a shard's bytes have the hash in its name."""
    written = name.partition("-")[2].partition(".")[0]
    return not shards.has_link(name) and stored_hash(shards, name) == written


def _index(entry: Entry, writer: EntryWriter, stored: list[str], damage: list[Damage]) -> Index:
    """Return the index of all shards of the entry, published or not."""
    try:
        entry.index.check()
        published = entry.index.shards()
    except CacheError as error:
        damage.append(Damage(entry.index_name, str(error)))
        return writer.current(stored, rebuild=True)
    return writer.current(sorted({*stored, *published}))


def _scale(entry: Entry, damage: list[Damage]) -> str | None:
    """Return the digest of the entry's scale, empty if it needs none; ``None`` if it is damaged."""
    try:
        return entry.scale.digest if entry.scale else ""
    except DamagedError as error:
        damage.append(Damage(SCALE, str(error)))
        return None


def _damage(
    entry: Entry, name: str, rows: Mapping[str, Mapping[str, Any]], scale: str | None
) -> Iterator[Damage]:
    """Yield the damage of a shard; ``rows`` are its rows in the index, ``scale`` is the digest.

    Raises:
        CacheError: the shard cannot be read at present.
    """
    shards = entry.folder / "shards"
    if has_scale(entry.spec):
        with suppress(DamagedError):  # then its bytes are not those that were written
            if read_facts(shards, name).get("scale") != scale:
                reason = f"its codes belong to another {SCALE} than the one here"
                yield Damage(name, reason, tuple(rows))
                return
    reason = "its bytes are not those that were written"
    try:
        if is_as_written(shards, name):
            inside = {row["id"]: row for row in read_rows(shards, name).to_pylist()}
            wrong = tuple(id for id, row in rows.items() if inside.get(id) != row)
            if wrong:
                yield Damage(entry.index_name, f"it disagrees with shard {name}", wrong)
            return
    except FileNotFoundError:
        reason = "a part of it is missing"
    lost = [id for id, row in rows.items() if not _is_whole(shards, name, row, entry.spec)]
    whole = rows.keys() - set(lost)
    yield Damage(name, reason, tuple(lost), tuple(sorted(whole)))


def _is_whole(shards: Folder, name: str, row: Mapping[str, Any], spec: EntrySpec) -> bool:
    start, stop = row["offset"], row["offset"] + row["length"]
    try:
        array = open_shard(shards, name, spec)
        states = array.read(slice(None), start, stop)
    except Exception:  # a decoder may raise anything for damaged bytes
        return False
    return states.shape[1] == stop - start and checksum(states) == str(row["checksum"])


def _repair(writer: EntryWriter, index: Index, damage: list[Damage]) -> None:
    """Write undamaged utterances again, publish without the damaged shards, then delete these."""
    writer.prepare()  # a copy of a cache may lack its empty folders
    names = {item.what for item in damage}
    damaged = names & set(writer.shards())
    for item in damage:
        if item.whole:
            rows = index.rows_in([item.what]).to_pylist()
            kept = [row for row in rows if row["id"] in set(item.whole)]
            writer.with_form_of(item.what).rewrite_shard(item.what, kept)
    indexes = {name for name in names if FILE.fullmatch(name)}
    for name in indexes:  # the new index may have the same name
        writer.folder.remove(name)
    writer.publish(without=damaged, rebuild=bool(indexes))
    for name in damaged:
        (writer.folder / "shards").remove(name)
    if SCALE in names:  # all its shards are deleted: the next extraction makes a new one
        writer.folder.remove(SCALE)


def _some(ids: tuple[str, ...]) -> str:
    shown = ", ".join(ids[:10])
    return f"{shown} and {len(ids) - 10} more" if len(ids) > 10 else shown
