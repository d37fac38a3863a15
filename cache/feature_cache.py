"""The cache: a folder of datasets, each a folder of entries and manifests."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .atomic import write_file
from .entry import Entry
from .errors import CacheError
from .identity import EntrySpec, checked_name, differences, digest
from .writer import EntryWriter


class FeatureCache:
    """Cached hidden states below one folder, for any number of datasets and encoders.

    >>> import mser
    >>> cache = mser.FeatureCache("/cluster/shared/mser")  # doctest: +SKIP
    >>> speech = cache.open("meld", encoder="facebook/wav2vec2-base")  # doctest: +SKIP
    >>> speech["train/dia0_utt0"].shape  # (layers, frames, dim)  # doctest: +SKIP
    (13, 283, 768)
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).expanduser()

    def datasets(self) -> list[str]:
        """Return the names of the datasets of which the cache holds something."""
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if path.is_dir())

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
            raise CacheError(f"{self.root} holds no {what}: run 'mser extract' first")
        fitting = [entry for entry in candidates if encoder in (None, *_names(entry))]
        if not fitting:
            raise CacheError(
                f"{self.root} holds no {what} by '{encoder}', only by {_list(candidates)}: "
                "choose one of these, or run 'mser extract' with that encoder first"
            )
        wrong = {entry.path: differences(expect or {}, entry.spec.identity) for entry in fitting}
        right = [entry for entry in fitting if not wrong[entry.path]]
        if not right:
            raise CacheError(
                f"the {what} in {self.root} were made by another '{encoder}' than this one "
                f"({'; '.join(wrong[fitting[0].path])}): run 'mser extract' with this one first"
            )
        if len(right) > 1:
            raise CacheError(
                f"{self.root} holds {what} by {_list(right)}: say which, by its name or key"
            )
        return right[0]

    def writer(self, spec: EntrySpec) -> EntryWriter:
        """Return a writer for the entry of this identity, which may be new or partly filled."""
        writer = EntryWriter(self.root / spec.folder, spec)
        writer.prepare()
        return writer

    def write_manifest(self, dataset: str, manifest: pa.Table) -> str:
        """Keep what is known of a dataset's utterances, and return the digest to find it by."""
        name = digest([manifest.to_pylist(), _text(manifest.schema.metadata)])
        sink = pa.BufferOutputStream()
        pq.write_table(manifest, sink)
        path = self._manifest(dataset, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, sink.getvalue().to_pybytes())
        return name

    def read_manifest(self, dataset: str, name: str) -> pa.Table:
        """Return the manifest that was kept under the digest ``name``."""
        path = self._manifest(dataset, name)
        try:
            return pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise CacheError(
                f"{path} cannot be read ({error}): run 'mser extract' again to write it anew"
            ) from error

    def _entries(self, dataset: str, modality: str | None) -> tuple[list[Entry], list[CacheError]]:
        """Open what can be opened: one damaged entry does not take the others away."""
        found, damaged = [], []
        for file in sorted((self.root / checked_name(dataset)).glob("*/entry.json")):
            try:
                entry = Entry(file.parent)
            except CacheError as error:
                damaged.append(error)
                continue
            if modality in (None, entry.spec.modality):
                found.append(entry)
        return found, damaged

    def _manifest(self, dataset: str, name: str) -> Path:
        return self.root / checked_name(dataset) / f"corpus-{checked_name(name)}.parquet"


def _names(entry: Entry) -> tuple[str, ...]:
    return entry.spec.encoder, entry.spec.key


def _list(entries: list[Entry]) -> str:
    return ", ".join(f"'{entry.spec.encoder}' (key {entry.spec.key})" for entry in entries)


def _text(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in (metadata or {}).items()}
