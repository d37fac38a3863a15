"""Filling one entry: shards are committed one by one, then the entry is published."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .clock import now, time_after
from .dtypes import encoded
from .entry import read_record
from .errors import CacheError, damaged_shard
from .formats import COMPRESSIONS, store_of
from .formats.arrays import Array
from .identity import ENTRY_FORMAT, EntrySpec
from .index import Index
from .provenance import write_run
from .quarantine import Quarantined, read_quarantine, write_quarantine
from .scale import FILE as SCALE
from .scale import Scale
from .scale_file import has_scale, scale_for_reading, scale_for_writing
from .shard import (
    NAME,
    UtteranceFeatures,
    checksum,
    open_shard,
    read_facts,
    read_rows,
    translate_damage,
    write_shard,
)
from .storage.folder import Folder
from .storage.leases import lease

_PATIENCE = 10.0  # seconds


@dataclass(frozen=True)
class _View:
    """What readers are to see: the index of the utterances in these shards."""

    shards: list[str]
    index: Index


@dataclass(frozen=True)
class EntryWriter:
    """Fills one entry. It holds only names and may be sent to any process.

    A shard is permanent once :meth:`write_shard` returns; readers see it after :meth:`publish`.
    Several writers may fill one entry: a shard never overwrites another, and of two copies of an
    utterance the newer one counts.
    """

    folder: Folder
    """The folder of the entry."""
    spec: EntrySpec
    """The identity of the entry."""
    provenance: Mapping[str, Any]
    """The record of the run, a JSON object."""
    store: str = "zarr"
    """Format of new shards, ``zarr`` (the default) or ``hdf5``."""
    compression: str = "none"
    """Compression of new shards, ``none`` (the default), ``zstd`` or ``blosc``."""
    seen: str = ""
    """The latest time of writing that this writer has seen; see :meth:`following`."""

    def prepare(self) -> None:
        """Create the entry's folder, or check that the existing entry has this identity.

        Raises:
            CacheError: the folder holds another entry, a damaged one, or cannot be created.
        """
        for name in ("shards", "leases", "runs"):
            (self.folder / name).make()
        self.check()

    def check(self) -> None:
        """Raise ``CacheError`` if the folder holds another entry, or a damaged one."""
        with suppress(FileNotFoundError):
            read_record(self.folder)

    def following(self, index: Index) -> "EntryWriter":
        """Return a writer whose shards count as newer than all of ``index``, by whatever clock."""
        return replace(self, seen=max(self.seen, index.latest()))

    def lease(self, work: str, patience: float = 0.0) -> AbstractContextManager[bool]:
        """Try to acquire the lease of a piece of work; the context yields whether it succeeded.

        ``work`` is the name of the work, of letters, digits and ``-``, equal in all processes.
        ``False`` means that another process held the lease for ``patience`` seconds. A lease only
        avoids double work; nothing is wrong without it.
        """
        return lease(self.folder / "leases", work, patience)

    @property
    def lacks_scale(self) -> bool:
        """Whether the entry is ``int8`` and has no scale yet."""
        return has_scale(self.spec) and SCALE not in self.folder.names()

    def scale(self, calibration: Callable[[], Iterable[Array]]) -> Scale | None:
        """Return the scale of an ``int8`` entry; ``None`` for other dtypes.

        If the entry has none yet, it gets that of ``calibration()``: hidden states (layers, frames,
        dim), floating and finite. Whoever writes it first fixes it for all shards of the entry.

        Raises:
            CacheError: the scale is damaged or lost, or the cache cannot be written.
        """
        return scale_for_writing(self.folder, self.spec, calibration, self.shards)

    def write_shard(self, number: int, utterances: Sequence[UtteranceFeatures]) -> str:
        """Commit one shard and return its name.

        The utterances of the first shard calibrate an ``int8`` entry that has no scale yet; call
        :meth:`scale` before if others should.

        Raises:
            CacheError: an array does not have the entry's shape (layers, frames, dim), an ``int8``
                entry would get a number that is not finite, or the cache cannot be written.
        """
        run = write_run(self.folder, self.provenance)
        for utterance in utterances:
            self._check(utterance)
        scale = self.scale(lambda: [utterance.hidden_states for utterance in utterances])
        arrays = [encoded(one.hidden_states, self.spec.dtype, scale) for one in utterances]
        stored = list(map(_with_states, utterances, arrays))
        facts = {"written": time_after(self.seen), "run": run}
        return self._write(number, stored, facts | ({"scale": scale.digest} if scale else {}))

    def rewrite_shard(self, name: str, rows: Iterable[Mapping[str, Any]]) -> str:
        """Commit utterances of a shard again, in this writer's store and compression.

        ``rows`` are rows of the index, at least one. The old shard stays. The new one replaces it,
        but no utterance that was extracted later.

        Raises:
            DamagedError: the shard is damaged.
        """
        shards = self.folder / "shards"
        array = open_shard(shards, name, self.spec)
        kept, written = [], ""
        for row in rows:
            with translate_damage(shards, name):
                states = array.read(slice(None), row["offset"], row["offset"] + row["length"])
            # Without this check, damaged features would get a new and correct checksum.
            if checksum(states) != row["checksum"]:
                raise damaged_shard(
                    shards,
                    name,
                    f"the features of '{row['id']}' are not those that were written; run "
                    "'mser cache verify --repair'",
                )
            kept.append(UtteranceFeatures(row["id"], row["content_hash"], states))
            written = row["written"].partition("/")[0]
        # As text, the time sorts after the original and before everything newer.
        scale = scale_for_reading(self.folder, self.spec)
        facts = {"written": f"{written}/{now()}", "run": ""}
        facts |= {"scale": scale.digest} if scale else {}
        with suppress(CacheError):  # the features are usable without the name of the run
            old = read_facts(shards, name)
            facts |= {key: str(old[key]) for key in facts if key != "written" and key in old}
        return self._write(int(name.partition("-")[0]), kept, facts)

    def with_form_of(self, shard: str) -> "EntryWriter":
        """Return a writer with the store and the compression of a shard."""
        compression = "none"
        with suppress(CacheError):  # of a damaged shard, the compression is unknown
            stored = read_facts(self.folder / "shards", shard).get("compression")
            compression = stored if stored in COMPRESSIONS else compression
        return replace(self, store=store_of(shard), compression=compression)

    def shards(self) -> list[str]:
        """Return the names of all committed shards, published or not."""
        return [name for name in (self.folder / "shards").committed() if NAME.fullmatch(name)]

    def committed(self, number: int | None = None) -> dict[str, str]:
        """Return the content hash of each utterance in a committed shard, published or not.

        With ``number``, only the shards with that number are read.
        """
        return self.stored(number).content_hashes()

    def stored(self, number: int | None = None) -> Index:
        """Return the index of all utterances in committed shards, published or not.

        With ``number``, only the shards with that number are read.
        """
        shards, names = self.folder / "shards", self.shards()
        if number is None:
            return self.current(names)
        numbered = [name for name in names if int(name.partition("-")[0]) == number]
        return Index.of([read_rows(shards, name) for name in numbered])

    def quarantined(self) -> dict[str, Quarantined]:
        """Return the utterances in quarantine, by id."""
        return read_quarantine(self.folder)

    def quarantine(self, quarantined: Iterable[Quarantined]) -> None:
        """Replace the list of the utterances that could not be extracted, if it has changed.

        A new sentence is no change: it may name the place of the corpus, which differs by user.
        """
        wanted = {utterance.id: utterance for utterance in quarantined}
        if _reasons(wanted) != _reasons(self.quarantined()):
            write_quarantine(self.folder, wanted.values())

    def publish(
        self,
        manifest: str | None = None,
        without: Collection[str] = (),
        *,
        rebuild: bool = False,
    ) -> None:
        """Make all committed shards visible to readers, except those named in ``without``.

        ``manifest`` is the digest that :meth:`FeatureCache.write_manifest` returned; ``None`` keeps
        the manifest of the entry. If nothing is new, no file changes. With ``rebuild``, the index
        is built from the shards alone, without the published index.
        """
        view = self._view(without, rebuild)
        if not rebuild and self._shows(view, manifest):
            with suppress(CacheError):  # also in a cache that this process may only read
                view.index.write_lookup(self.folder, read_record(self.folder)["index"])
            return
        # One writer at a time, so an older view never replaces a newer one, even for a moment. A
        # process that holds the lease too long may be stuck; then this one publishes without it.
        with self.lease("publish", _PATIENCE):
            if view.shards != self._shards(without):
                view = self._view(without, rebuild)
            while not self._publish(view, manifest, without):
                # Another writer published at the same time: repeat with its shards.
                view = self._view(without, rebuild)

    def current(self, shards: Sequence[str], *, rebuild: bool = False) -> Index:
        """Return the index of the utterances in ``shards``, without damaged shards.

        Published shards are not read: the published index lists them. With ``rebuild``, all shards
        are read.
        """
        tables, known = [], set()
        published = None if rebuild else self._published()
        if published is not None:
            tables.append(published.rows_in(shards))
            known = set(published.shards())
        for name in shards:
            if name not in known:
                with suppress(CacheError):  # a damaged shard is left out
                    tables.append(read_rows(self.folder / "shards", name))
        return Index.of(tables)

    def _shards(self, without: Collection[str]) -> list[str]:
        return [name for name in self.shards() if name not in without]

    def _view(self, without: Collection[str], rebuild: bool) -> _View:
        shards = self._shards(without)
        return _View(shards, self.current(shards, rebuild=rebuild))

    def _shows(self, view: _View, manifest: str | None) -> bool:
        """Return whether readers see exactly this already."""
        with suppress(CacheError, FileNotFoundError):
            if manifest in (None, read_record(self.folder)["manifest"]):
                published = self._published()
                return published is not None and published.has_rows_of(view.index)
        return False

    def _publish(self, view: _View, manifest: str | None, without: Collection[str]) -> bool:
        """Publish once, and return whether nothing changed at the same time."""
        index, name = view.index, view.index.write(self.folder)
        replaced: Mapping[str, Any] = {}
        with suppress(FileNotFoundError):
            replaced = read_record(self.folder)
            if manifest is None:
                manifest = str(replaced["manifest"])
            if (replaced["index"], replaced["manifest"]) == (name, manifest):
                return True
        record = {
            "format": ENTRY_FORMAT,
            "key": self.spec.key,
            **asdict(self.spec),
            "utterances": len(index),
            "frames": index.frames(),
            "index": name,
            "manifest": manifest or "",
            "published": now(),
        }
        self.folder.write("entry.json", json.dumps(record, indent=2).encode() + b"\n")
        if replaced and replaced["index"] != name:
            self.folder.remove(replaced["index"])
        return name in self.folder.names() and self._shards(without) == view.shards

    def _published(self) -> Index | None:
        """Return the published index, or ``None`` if it is missing or damaged."""
        for _ in range(5):
            try:
                name = str(read_record(self.folder)["index"])
            except (CacheError, FileNotFoundError):
                return None  # nothing is published: a record is replaced in one step
            try:
                index = Index.read(self.folder, name)
                _ = index.table  # here, where damage is handled
                return index
            except CacheError:
                return None
            except FileNotFoundError:
                continue  # another writer has just replaced the index
        return None

    def _check(self, utterance: UtteranceFeatures) -> None:
        array = utterance.hidden_states
        layers, dim = len(self.spec.layers), self.spec.dim
        if array.ndim != 3 or (array.shape[0], array.shape[2]) != (layers, dim) or not array.size:
            raise CacheError(
                f"the features of '{utterance.id}' have the shape {array.shape}, and this entry "
                f"holds ({layers}, frames, {dim})"
            )
        if has_scale(self.spec) and not np.isfinite(array).all():
            raise CacheError(
                f"the features of '{utterance.id}' contain infinite values or NaN, which "
                f"{self.spec.dtype} cannot hold: leave the utterance out"
            )

    def _write(
        self, number: int, utterances: Sequence[UtteranceFeatures], facts: Mapping[str, str]
    ) -> str:
        shards = self.folder / "shards"
        return write_shard(shards, number, utterances, facts, self.store, self.compression)


def _with_states(utterance: UtteranceFeatures, states: Array) -> UtteranceFeatures:
    return replace(utterance, hidden_states=states)


def _reasons(quarantined: Mapping[str, Quarantined]) -> dict[str, tuple[str | None, str]]:
    return {id: (bad.content_hash, bad.reason) for id, bad in quarantined.items()}
