"""The cache: a folder of datasets, each a folder of entries and manifests."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .entry import Entry
from .errors import CacheError
from .identity import EntrySpec, can_be_name, checked_name, differences, digest, name_of_encoder
from .shard import check_form
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
        """Return the names of the datasets of which the cache holds something."""
        names = [name for name in self.root.names() if can_be_name(name)]
        return [name for name in names if (self.root / name).names()]

    def entry_folders(
        self, dataset: str, encoder: str | None = None, modality: str | None = None
    ) -> list[Folder]:
        """Return the folders of a dataset's entries, damaged and unpublished ones too."""
        folder = self.root / checked_name(dataset)
        names = [name for name in folder.names() if can_be_name(name)]
        places = [folder / name for name in names if not name.endswith(".parquet")]
        if modality is not None:
            places = [place for place in places if place.name.startswith(f"{modality}-")]
        if encoder is not None:
            parts = f"-{name_of_encoder(encoder)}-"
            places = [place for place in places if parts in f"{place.name}-"]
        return [place for place in places if "shards" in place.names()]

    def entries(self, dataset: str, modality: str | None = None) -> list[Entry]:
        """Return all entries of a dataset, or those of one modality.

        Raises:
            CacheError: one of them is damaged.
        """
        found, damaged = self._entries(dataset, modality)
        if damaged:
            raise damaged[0]
        return found

    def open(
        self,
        dataset: str,
        encoder: str | None = None,
        *,
        modality: str | None = None,
        expect: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Open the one entry that is meant.

        ``encoder`` is the name by which it was extracted (a hub name, or a folder's own name) or
        the key of the entry; without it, the dataset must have one entry of the modality.
        ``expect`` gives parts of the identity that the entry must have: the same name with other
        weights is refused, not mixed.

        Raises:
            CacheError: no entry fits, or several do; the message lists those that are there.
        """
        candidates, damaged = self._entries(dataset, modality)
        what = " ".join(filter(None, [modality, "features of", dataset]))
        if damaged and not any(encoder in (None, *_names(entry)) for entry in candidates):
            raise damaged[0]  # it may be the one that is meant
        if not candidates:
            raise CacheError(
                f"{self.root} holds no {what}: run 'mser extract' or 'mser cache import' first"
            )
        fitting = [entry for entry in candidates if encoder in (None, *_names(entry))]
        if not fitting:
            raise CacheError(
                f"{self.root} holds no {what} by '{encoder}', only by {_list(candidates)}: "
                "choose one of these, or run 'mser extract' with that encoder first"
            )
        wrong = {
            entry.spec.key: differences(expect or {}, entry.spec.identity) for entry in fitting
        }
        right = [entry for entry in fitting if not wrong[entry.spec.key]]
        if not right:
            raise CacheError(
                f"the {what} in {self.root} were made by another '{encoder}' than this one "
                f"({'; '.join(wrong[fitting[0].spec.key])}): run 'mser extract' with this one first"
            )
        if len(right) > 1:
            raise CacheError(
                f"{self.root} holds {what} by {_list(right)}: say which, by its name or key"
            )
        _ = right[0].index  # whatever is wrong with it is said here
        return right[0]

    def writer(
        self,
        spec: EntrySpec,
        provenance: Mapping[str, Any],
        store: str = "zarr",
        compression: str = "none",
    ) -> EntryWriter:
        """Return a writer for the entry of this identity, which may be new or partly filled.

        Raises:
            CacheError: another entry lies in its place, or the cache cannot be written to.
        """
        check_form(store, compression)
        writer = self.existing(spec, provenance, store, compression)
        writer.prepare()
        return writer

    def existing(
        self,
        spec: EntrySpec,
        provenance: Mapping[str, Any] | None = None,
        store: str = "zarr",
        compression: str = "none",
    ) -> EntryWriter:
        """Return the same writer without making or checking anything, to look at what is there."""
        return EntryWriter(self.root / spec.folder, spec, provenance or {}, store, compression)

    def write_manifest(self, dataset: str, manifest: pa.Table) -> str:
        """Keep what is known of a dataset's utterances, and return the digest to find it by.

        The table has a column ``id``; of the others the cache knows nothing.
        """
        name = digest([manifest.to_pylist(), _text(manifest.schema.metadata)])
        sink = pa.BufferOutputStream()
        pq.write_table(manifest, sink)
        folder = self.root / checked_name(dataset)
        folder.make()
        folder.write(_manifest(name), sink.getvalue().to_pybytes())
        return name

    def read_manifest(self, dataset: str, name: str) -> pa.Table:
        """Return the manifest that was kept under the digest ``name``."""
        folder, file = self.root / checked_name(dataset), _manifest(name)
        try:
            # On this thread alone: Arrow's own may still be at it when Python ends, and abort it.
            content = pq.ParquetFile(pa.BufferReader(folder.read(file)), pre_buffer=False)
            return content.read(use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise CacheError(
                f"{folder}/{file} cannot be read ({error}): run 'mser extract' again to write it "
                "anew"
            ) from error

    def _entries(self, dataset: str, modality: str | None) -> tuple[list[Entry], list[CacheError]]:
        """Open what can be opened: one damaged entry does not take the others away."""
        found, damaged = [], []
        for place in self.entry_folders(dataset):
            try:
                entry = Entry(place)
            except FileNotFoundError:
                continue  # it was never published
            except CacheError as error:
                damaged.append(error)
                continue
            if modality in (None, entry.spec.modality):
                found.append(entry)
        return found, damaged


def _folder(root: str | os.PathLike[str], options: Mapping[str, Any] | None) -> Folder:
    text = os.fspath(root)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return LocalFolder(Path(text).expanduser())
    if scheme in ("file", "local"):
        return LocalFolder(Path(rest))
    return RemoteFolder(text, options)


def _manifest(name: str) -> str:
    return f"corpus-{checked_name(name)}.parquet"


def _names(entry: Entry) -> tuple[str, ...]:
    return entry.spec.encoder, entry.spec.key


def _list(entries: list[Entry]) -> str:
    return ", ".join(f"'{entry.spec.encoder}' (key {entry.spec.key})" for entry in entries)


def _text(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in (metadata or {}).items()}
