"""The cache: a folder of datasets; each dataset is a folder of entries and manifests."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .entry import Entry
from .errors import AmbiguousEntryError, CacheError, DamagedError, NotFoundError
from .formats import check_form
from .identity import (
    EntrySpec,
    can_be_name,
    checked_name,
    digest,
    identity_differences,
    name_of_encoder,
)
from .storage.folder import Folder
from .storage.local import LocalFolder
from .storage.remote import RemoteFolder
from .writer import EntryWriter


class FeatureCache:
    """Cached hidden states below one folder, for any number of datasets and encoders.

    ``root`` is a path or an fsspec URL of an object store (``s3://bucket/folder``);
    ``storage_options`` go to fsspec, which also reads its own configuration and environment.

    >>> import mser
    >>> cache = mser.FeatureCache("/cluster/shared/mser")  # doctest: +SKIP
    >>> speech = cache.open("meld", encoder="facebook/wav2vec2-base")  # doctest: +SKIP
    >>> speech["train/dia0_utt0"].shape  # (layers, frames, dim)  # doctest: +SKIP
    (13, 283, 768)
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.root = _folder(root, storage_options)

    def datasets(self) -> list[str]:
        """Return the names of all datasets in the cache, sorted."""
        names = [name for name in self.root.names() if can_be_name(name)]
        return [name for name in names if _may_hold(self.root / name)]

    def entry_folders(
        self, dataset: str, encoder: str | None = None, modality: str | None = None
    ) -> list[Folder]:
        """Return the folders of a dataset's entries.

        Also those that are damaged, not published yet, or that this user may not read.
        """
        folder = self.root / checked_name(dataset)
        names = [name for name in folder.names() if can_be_name(name)]
        names = [name for name in names if not name.endswith(".parquet")]
        if modality is not None:
            names = [name for name in names if name.startswith(f"{modality}-")]
        if encoder is not None:
            names = [name for name in names if f"-{name_of_encoder(encoder)}-" in f"{name}-"]
        folders = [folder / name for name in names]
        return [folder for folder in folders if _may_hold(folder, "shards")]

    def entries(self, dataset: str, modality: str | None = None) -> list[Entry]:
        """Return all entries of a dataset, or those of one modality, without pooled features.

        Raises:
            CacheError: one of them cannot be opened; ``DamagedError`` if it is damaged.
        """
        entries, errors = self._entries(dataset, modality)
        if errors:
            raise errors[0]
        return entries

    def open(
        self,
        dataset: str,
        encoder: str | None = None,
        *,
        modality: str | None = None,
        expect: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Open the one entry that matches.

        ``encoder`` is the name under which it was extracted (a hub name, or the name of a folder)
        or the key of the entry; without it, the dataset must have one entry of the modality.
        ``expect`` lists parts of the identity that the entry must have, so an entry with the same
        name but other weights is refused.

        Raises:
            NotFoundError: no entry matches; the message lists the entries of the dataset.
            AmbiguousEntryError: several entries match.
            DamagedError: the entry is damaged.
        """
        candidates, errors = self._entries(dataset, modality)
        what = " ".join(filter(None, [modality, "features of", dataset]))
        named = [entry for entry in candidates if encoder in (None, *_names(entry))]
        if errors and not named:
            raise errors[0]  # this entry may be the wanted one
        if not candidates:
            held = sorted({entry.spec.modality for entry in self._entries(dataset, None)[0]})
            others = f", only {' and '.join(held)}: choose from these, or" if held else ":"
            raise NotFoundError(
                f"{self.root} holds no {what}{others} run 'mser extract' or 'mser cache import' "
                "first"
            )
        if not named:
            raise NotFoundError(
                f"{self.root} holds no {what} by '{encoder}', only by {_list(candidates)}: "
                "choose one of these, or run 'mser extract' with that encoder first"
            )
        unexpected = {
            entry.spec.key: identity_differences(expect or {}, entry.spec.identity)
            for entry in named
        }
        matching = [entry for entry in named if not unexpected[entry.spec.key]]
        if not matching:
            raise NotFoundError(
                f"the {what} in {self.root} were made by another '{encoder}' than this one "
                f"({'; '.join(unexpected[named[0].spec.key])}): run 'mser extract' with this one "
                "first"
            )
        if len(matching) > 1:
            raise AmbiguousEntryError(
                f"{self.root} holds {what} by {_list(matching)}: choose one by its name or key"
            )
        _ = matching[0].index  # a damaged index is an error here, not at the first read
        return matching[0]

    def writer(
        self,
        spec: EntrySpec,
        provenance: Mapping[str, Any],
        store: str = "zarr",
        compression: str = "none",
    ) -> EntryWriter:
        """Return a writer for the entry of this identity, which may be new or partly filled.

        Its shards count as newer than all that the entry holds now.

        Raises:
            CacheError: another entry has its folder, or the cache cannot be written.
        """
        check_form(store, compression)
        writer = self.existing(spec, provenance, store, compression)
        writer.prepare()
        return writer.following(writer.stored())

    def existing(
        self,
        spec: EntrySpec,
        provenance: Mapping[str, Any] | None = None,
        store: str = "zarr",
        compression: str = "none",
    ) -> EntryWriter:
        """Return the same writer without creating or checking anything, to read from the entry."""
        return EntryWriter(self.root / spec.folder, spec, provenance or {}, store, compression)

    def write_manifest(self, dataset: str, manifest: pa.Table) -> str:
        """Store a table of the dataset's utterances, and return its digest.

        The table has a column ``id``; the cache does not use the other columns.
        """
        name = digest([manifest.to_pylist(), _text(manifest.schema.metadata)])
        with suppress(CacheError):
            if self.read_manifest(dataset, name).equals(manifest):
                return name  # also in a cache that this process may only read
        sink = pa.BufferOutputStream()
        pq.write_table(manifest, sink)
        folder = self.root / checked_name(dataset)
        folder.make()
        folder.write(_manifest(name), sink.getvalue().to_pybytes())
        return name

    def read_manifest(self, dataset: str, name: str) -> pa.Table:
        """Return the manifest with the digest ``name``.

        Raises:
            NotFoundError: there is no such manifest.
            DamagedError: the manifest is damaged.
        """
        folder, file = self.root / checked_name(dataset), _manifest(name)
        try:
            # Only on this thread: Arrow's own threads may still run when Python ends, and abort it.
            content = pq.ParquetFile(pa.BufferReader(folder.read(file)), pre_buffer=False)
            return content.read(use_threads=False)
        except FileNotFoundError:
            raise NotFoundError(
                f"there is no {folder}/{file}: run 'mser extract' again to write it"
            ) from None
        except (OSError, pa.ArrowException) as error:
            raise DamagedError(
                f"{folder}/{file} is damaged ({error}): run 'mser extract' again to replace it"
            ) from error

    def _entry(self, folder: Folder) -> Entry:
        return Entry(folder)

    def _entries(self, dataset: str, modality: str | None) -> tuple[list[Entry], list[CacheError]]:
        """Return the entries that can be opened, and the errors of the others."""
        entries, errors = [], []
        for folder in self.entry_folders(dataset):
            try:
                entry = self._entry(folder)
            except CacheError as error:
                errors.append(error)
                continue
            except FileNotFoundError:
                continue  # it was never published
            if modality in (None, entry.spec.modality) and entry.spec.pooled_from is None:
                entries.append(entry)
        return entries, errors


def _folder(root: str | os.PathLike[str], options: Mapping[str, Any] | None) -> Folder:
    text = os.fspath(root)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return LocalFolder(Path(text).expanduser())
    if scheme in ("file", "local"):
        return LocalFolder(Path(rest))
    return RemoteFolder(text, options)


def _may_hold(folder: Folder, name: str | None = None) -> bool:
    """Return whether a folder holds ``name``, or anything; if it cannot be listed, it may."""
    try:
        names = folder.names()
    except CacheError:
        return True
    return bool(names) if name is None else name in names


def _manifest(name: str) -> str:
    return f"corpus-{checked_name(name)}.parquet"


def _names(entry: Entry) -> tuple[str, ...]:
    return entry.spec.encoder, entry.spec.key


def _list(entries: list[Entry]) -> str:
    return ", ".join(f"'{entry.spec.encoder}' (key {entry.spec.key})" for entry in entries)


def _text(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in (metadata or {}).items()}
