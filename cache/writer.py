"""Filling one entry: shards are committed one by one, then the entry is published."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from .entry import read_record
from .errors import CacheError
from .identity import FORMAT, EntrySpec
from .index import Index
from .provenance import write_run
from .quarantine import Quarantined, read_quarantine, write_quarantine
from .shard import (
    COMPRESSIONS,
    NAME,
    UtteranceFeatures,
    checksum,
    damage_named,
    open_shard,
    read_facts,
    read_rows,
    store_of,
    write_shard,
)
from .storage.folder import Folder
from .storage.leases import lease

_PATIENCE = 10.0  # seconds


@dataclass(frozen=True)
class EntryWriter:
    """Fills one entry. It holds nothing but names, so it may be sent to any process.

    A shard is there for good once :meth:`write_shard` returns, whatever happens later; a reader
    sees it once :meth:`publish` has run. Several writers may fill one entry: a shard never
    overwrites another, and of two copies of an utterance the newer one counts.

    ``provenance`` is what there is to know of the run, a JSON object. ``store`` (``zarr``,
    ``hdf5``) and ``compression`` (``none``, ``zstd``, ``blosc``) are those of new shards.
    """

    folder: Folder
    spec: EntrySpec
    provenance: Mapping[str, Any]
    store: str = "zarr"
    compression: str = "none"

    def prepare(self) -> None:
        """Make the entry's folder, or check that what lies there is an entry of this identity."""
        for name in ("shards", "leases", "runs"):
            (self.folder / name).make()
        with suppress(FileNotFoundError):
            read_record(self.folder)

    def lease(self, work: str, patience: float = 0.0) -> AbstractContextManager[bool]:
        """Hold the lease of a piece of work for the time of a context, which says if that is so.

        ``work`` is a name that all processes use for the same piece, of letters, digits and ``-``.
        ``False`` means that another process is at it, and was for ``patience`` seconds. A lease
        saves work and is not needed for anything else.
        """
        return lease(self.folder / "leases", work, patience)

    def write_shard(self, number: int, utterances: Sequence[UtteranceFeatures]) -> str:
        """Commit one shard and return its name.

        Raises:
            CacheError: an array is not (layers, frames, dim) as the entry's are, or the place
                cannot be written to.
        """
        run = write_run(self.folder, self.provenance)
        return self._write(number, [self._checked(one) for one in utterances], run, _now())

    def rewrite_shard(self, name: str, rows: Iterable[Mapping[str, Any]]) -> str:
        """Commit utterances of a shard again, in this writer's store and compression.

        ``rows`` are those of the index, one at least. The old shard stays; the new one counts in
        its place, and not in that of anything that was extracted since.

        Raises:
            CacheError: the shard is damaged.
        """
        shards = self.folder / "shards"
        array = open_shard(shards, name, self.spec)
        kept, written = [], ""
        for row in rows:
            with damage_named(shards, name):
                states = array.read(slice(None), row["offset"], row["offset"] + row["length"])
            # Written again, damage would have a checksum that is right.
            if checksum(states) != row["checksum"]:
                raise CacheError(
                    f"shard {name} of {shards} is damaged: the features of '{row['id']}' are not "
                    "those that were written; run 'mser cache verify --repair'"
                )
            kept.append(UtteranceFeatures(row["id"], row["content_hash"], states))
            written = row["written"].partition("/")[0]
        run = ""
        with suppress(CacheError):  # which run it was is not worth the features
            run = str(read_facts(shards, name).get("run", ""))
        # Sorted as text, behind what it is a copy of and before all that is newer.
        return self._write(int(name.partition("-")[0]), kept, run, f"{written}/{_now()}")

    def like(self, name: str) -> "EntryWriter":
        """Return a writer whose store and compression are those of a shard."""
        compression = "none"
        with suppress(CacheError):  # a damaged one may have had any
            said = read_facts(self.folder / "shards", name).get("compression")
            compression = said if said in COMPRESSIONS else compression
        return replace(self, store=store_of(name), compression=compression)

    def shards(self) -> list[str]:
        """Return the names of all shards that are committed, published or not."""
        return [name for name in (self.folder / "shards").committed() if NAME.fullmatch(name)]

    def committed(self, number: int | None = None) -> dict[str, str]:
        """Return the content hash of each utterance that lies in a shard, published or not.

        With ``number``, only shards of that number are looked at.
        """
        shards, names = self.folder / "shards", self.shards()
        if number is None:
            table = self.current(names).table
        else:
            ours = [name for name in names if int(name.partition("-")[0]) == number]
            table = Index.of([read_rows(shards, name) for name in ours]).table
        return dict(zip(table["id"].to_pylist(), table["content_hash"].to_pylist(), strict=True))

    def quarantined(self) -> dict[str, Quarantined]:
        """Return the utterances that failed before, by id."""
        return read_quarantine(self.folder)

    def quarantine(self, quarantined: Iterable[Quarantined]) -> None:
        """Replace the list of the utterances that could not be extracted."""
        write_quarantine(self.folder, quarantined)

    def publish(
        self,
        manifest: str | None = None,
        without: Collection[str] = (),
        *,
        anew: bool = False,
    ) -> None:
        """Let readers see all shards committed so far, but for those named in ``without``.

        ``manifest`` is the digest under which :meth:`FeatureCache.write_manifest` keeps the
        dataset's manifest; ``None`` leaves it as it is. Where there is nothing new, the entry stays
        as it is. With ``anew``, the index is made from the shards alone.
        """
        # One at a time, so that nobody's older view replaces a newer one for an instant. Whoever
        # holds the lease too long may be stuck: then it is done beside it.
        with self.lease("publish", _PATIENCE):
            while not self._publish(manifest, without, anew):
                pass  # another writer published meanwhile: do it again with what it has added

    def current(self, shards: Sequence[str], *, anew: bool = False) -> Index:
        """Return the index of what lies in ``shards``, damaged ones left out.

        What is published is known without reading its shards, and not asked with ``anew``.
        """
        tables, known = [], set()
        published = None if anew else self._published()
        if published is not None:
            tables.append(published.within(shards))
            known = set(published.shards())
        for name in shards:
            if name not in known:
                # Of a damaged shard nothing counts, and it takes nothing else away.
                with suppress(CacheError):
                    tables.append(read_rows(self.folder / "shards", name))
        return Index.of(tables)

    def _publish(self, manifest: str | None, without: Collection[str], anew: bool) -> bool:
        shards = [name for name in self.shards() if name not in without]
        index = self.current(shards, anew=anew)
        name = index.write(self.folder)
        replaced: Mapping[str, Any] = {}
        with suppress(FileNotFoundError):
            replaced = read_record(self.folder)
            if manifest is None:
                manifest = str(replaced["manifest"])
            if (replaced["index"], replaced["manifest"]) == (name, manifest):
                return True
        record = {
            "format": FORMAT,
            "key": self.spec.key,
            **asdict(self.spec),
            "utterances": len(index),
            "frames": index.frames(),
            "index": name,
            "manifest": manifest or "",
            "published": _now(),
        }
        self.folder.write("entry.json", json.dumps(record, indent=2).encode() + b"\n")
        if replaced and replaced["index"] != name:
            self.folder.remove(replaced["index"])
        now = [name for name in self.shards() if name not in without]
        return name in self.folder.names() and now == shards

    def _published(self) -> Index | None:
        """Return the index as readers see it, or nothing if it is not there or damaged."""
        for _ in range(5):
            try:
                return Index.read(self.folder, str(read_record(self.folder)["index"]))
            except FileNotFoundError:
                continue  # there is none, or another writer has just replaced it
            except CacheError:
                return None
        return None

    def _checked(self, one: UtteranceFeatures) -> UtteranceFeatures:
        array = one.hidden_states.astype(self.spec.dtype, copy=False)
        wanted = (len(self.spec.layers), self.spec.dim)
        if array.ndim != 3 or (array.shape[0], array.shape[2]) != wanted or not array.shape[1]:
            raise CacheError(
                f"features of '{one.id}' have the shape {array.shape}, and this entry "
                f"holds ({wanted[0]}, frames, {wanted[1]})"
            )
        return replace(one, hidden_states=array)

    def _write(
        self, number: int, utterances: Sequence[UtteranceFeatures], run: str, written: str
    ) -> str:
        facts = {"written": written, "run": run}
        shards = self.folder / "shards"
        return write_shard(shards, number, utterances, facts, self.store, self.compression)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
