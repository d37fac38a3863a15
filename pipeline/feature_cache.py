"""The cache as a user of mser sees it: with corpora, labels, encoders by folder, and plug-ins."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from ..cache import (
    CacheError,
    Entry,
    NotFoundError,
    UnknownUtteranceError,
    missing_pooled,
    pooled_entry,
)
from ..cache import FeatureCache as ArrayCache
from ..cache.storage.folder import Folder
from .corpora import Corpus
from .corpora.corpus_table import CorpusTable, corpus_table
from .corpora.manifest import from_table
from .errors import PipelineError, UsageError, unknown
from .option_texts import default_cache, with_options
from .plugins import is_spec
from .progress import progress
from .store_formats import FORMAT_PLUGINS

_TORCHAUDIO = "torchaudio:"  # its bundles look like a class in a module

Vectors = NDArray[np.float32]

__all__ = ["FORMAT_PLUGINS", "CorpusEntry", "FeatureCache", "require_most"]


class CorpusEntry(Entry):
    """The features of one encoder on one corpus, with the corpus's labels."""

    def __init__(self, folder: Folder, cache: ArrayCache) -> None:
        super().__init__(folder)
        self.cache = cache

    def __reduce__(self) -> tuple[Any, ...]:
        return CorpusEntry, (self.folder, self.cache)

    def __repr__(self) -> str:
        """Return the encoder, the corpus, the layers and the number of utterances."""
        spec = self.spec
        layers = ",".join(map(str, self.layers))
        return (
            f"<{spec.modality} features of {spec.dataset} by {spec.encoder} (key {spec.key}): "
            f"{len(self)} utterances, layers {layers}, {self.dim} wide, {spec.dtype}>"
        )

    def corpus(self, classes: str | None = None) -> CorpusTable:
        """Return the corpus as it was when the entry was last filled; see ``FeatureCache.corpus``.

        It includes the utterances whose features are not in the entry.
        """
        manifest = self.cache.read_manifest(self.spec.dataset, self.manifest)
        corpus, _ = from_table(manifest)
        return corpus_table(corpus.in_classes(classes), manifest)

    @property
    def labels(self) -> dict[str, str | None]:
        """Id → label, of the utterances in the entry; ``None`` if the corpus gives none."""
        corpus = self.corpus()
        labels = dict(zip(corpus.id, corpus.label, strict=True))
        return {id: labels.get(id) for id in self.ids}

    @overload
    def pooled(
        self,
        layer: int | Iterable[int] | None = None,
        *,
        ids: Iterable[str] | None = None,
        pooling: str = "mean",
        with_labels: Literal[False] = False,
        classes: str | None = None,
    ) -> Vectors: ...

    @overload
    def pooled(
        self,
        layer: int | Iterable[int] | None = None,
        *,
        ids: Iterable[str] | None = None,
        pooling: str = "mean",
        with_labels: Literal[True],
        classes: str | None = None,
    ) -> tuple[Vectors, NDArray[np.str_]]: ...

    def pooled(
        self,
        layer: int | Iterable[int] | None = None,
        *,
        ids: Iterable[str] | None = None,
        pooling: str = "mean",
        with_labels: bool = False,
        classes: str | None = None,
    ) -> Vectors | tuple[Vectors, NDArray[np.str_]]:
        """Return one vector for each utterance: the mean of its frames.

        The vectors are computed once, and kept in the cache beside the entry.

        Args:
            layer: the encoder's number of a layer, or several, side by side; default all stored
                layers.
            ids: the utterances, in this order; default all, or with labels those that have one,
                in the order of ``ids`` of the entry.
            pooling: ``mean``, or ``mean_std``: the mean, then the standard deviation of the
                population.
            with_labels: also return the labels.
            classes: the class set of the labels, if the corpus has several.

        Returns:
            (utterances, layers · dim) float32, twice as wide with ``mean_std``; and with labels,
            (utterances,) texts.

        Raises:
            UsageError: ``pooling`` is unknown, or one of the given ``ids`` has no label.
            CacheError: the entry does not hold a layer or an utterance, or is damaged.
        """
        if pooling not in ("mean", "mean_std"):
            raise UsageError(f"pooling '{pooling}': give mean or mean_std")
        layers = [layer] if isinstance(layer, int) else self.layers if layer is None else [*layer]
        chosen = [*self.ids] if ids is None else [*ids]
        labels: dict[str, str | None] = {}
        if with_labels:
            corpus = self.corpus(classes)
            labels = dict(zip(corpus.id, corpus.label, strict=True))
            if ids is None:
                chosen = [id for id in chosen if labels.get(id) is not None]
        if absent := [id for id in chosen if id not in self]:
            raise UnknownUtteranceError(f"{self.folder} does not hold the utterance '{absent[0]}'")
        if with_labels and (unlabelled := [id for id in chosen if labels.get(id) is None]):
            raise UsageError(f"the utterance '{unlabelled[0]}' has no label: leave it out of ids")
        width = self.dim if pooling == "mean" else 2 * self.dim
        states = self._pooled_entry().read(chosen, layers)
        vectors = np.empty((len(chosen), len(layers) * width), np.float32)
        for row, state in zip(vectors, states, strict=True):
            row[:] = state[:, 0, :width].reshape(-1)
        return (vectors, np.array([labels[id] for id in chosen])) if with_labels else vectors

    def _pooled_entry(self) -> Entry:
        missing = missing_pooled(self.cache, self)
        with progress(missing, f"pooling {self.spec.modality}", "utterance") as bar:
            return pooled_entry(self.cache, self, bar.update)


def _own(entry: Entry) -> CorpusEntry:
    assert isinstance(entry, CorpusEntry)  # noqa: S101 -- for the type
    return entry


class FeatureCache(ArrayCache):
    """Cached hidden states below one folder, for any number of datasets and encoders.

    See :class:`mser.cache.FeatureCache` for the arguments; ``root`` is by default ``$MSER_CACHE``,
    else ``~/.cache/mser``. Store formats of plug-ins are found if
    they are installed, or if the user has named their file before.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(default_cache() if root is None else root, storage_options)

    def __repr__(self) -> str:
        """Return the folder and the datasets."""
        return f"<cache {self.root}: {', '.join(self.datasets()) or 'no datasets yet'}>"

    def __str__(self) -> str:
        """Return the folder or the URL."""
        return str(self.root)

    def corpus(self, name: str, classes: str | None = None) -> CorpusTable:
        """Return a corpus as columns, as it was at the last extraction or import.

        ``classes`` is the class set, if the corpus has several, such as IEMOCAP's ``4``; default
        the first of them. The label of an utterance that is in none of the classes is ``None``.

        Raises:
            NotFoundError: the cache does not hold the corpus.
            UsageError: the corpus has no such class set.
            DamagedError: its manifest is damaged.
        """
        entries, errors = self._entries(name, None)
        if not entries:
            raise errors[0] if errors else self._no_corpus(name)
        newest = max(entries, key=lambda entry: entry.published)
        return _own(newest).corpus(classes)

    def open(
        self,
        dataset: str,
        encoder: str | Path | None = None,
        *,
        modality: str | None = None,
        expect: Mapping[str, Any] | None = None,
    ) -> CorpusEntry:
        """Open the one entry that matches; see :meth:`mser.cache.FeatureCache.open`.

        ``encoder`` is the name, the folder or the key of the encoder, or ``file.py:Class``. The
        weights of a folder, or the code of a file, must be those of the entry.

        Raises:
            UsageError: the folder holds no encoder, or the code cannot be loaded.
            CacheError: as the method of the base class.
        """
        name = None if encoder is None else str(encoder)
        if name is not None and Path(name).expanduser().is_dir():
            from .encoders import names_folder  # noqa: PLC0415 -- imports torch

            if names_folder(name):
                return self._open_folder(dataset, name, modality, expect or {})
        if name is not None and is_spec(with_options(name)[0]) and not name.startswith(_TORCHAUDIO):
            from .encoders import load_encoder  # noqa: PLC0415 -- imports torch

            computed = load_encoder(name, device="cpu", modality=modality)
            name, modality = computed.name, computed.modality
            expect = {"code": computed.identity["code"], **(expect or {})}
        return _own(super().open(dataset, name, modality=modality, expect=expect))

    def _open_folder(
        self, dataset: str, folder: str, modality: str | None, expect: Mapping[str, Any]
    ) -> CorpusEntry:
        from .encoders.checkpoint_files import find_encoder  # noqa: PLC0415 -- imports torch

        # Compare the weights of the folder: another encoder may have the same name.
        try:
            files = find_encoder(folder)
        except UsageError:
            with suppress(NotFoundError):  # another folder of the name of an encoder
                return _own(super().open(dataset, folder, modality=modality, expect=expect))
            raise
        expected = {"weights": files.weights_hash(), **expect}
        for name in (files.name, files.folder.name):  # older entries bear the name of the folder
            with suppress(NotFoundError):
                return _own(super().open(dataset, name, modality=modality, expect=expected))
        return _own(super().open(dataset, files.name, modality=modality, expect=expected))

    def _entry(self, folder: Folder) -> Entry:
        return CorpusEntry(folder, self)

    def _no_corpus(self, name: str) -> NotFoundError:
        held = ", ".join(self.datasets()) or "no corpus"
        return NotFoundError(
            f"{self.root} does not hold the corpus '{name}', only {held}: run 'mser extract' first"
        )


def require_dataset(cache: FeatureCache, name: str) -> None:
    """Check that a cache holds features of a dataset.

    Raises:
        UsageError: it holds features of other datasets only.
        PipelineError: it holds none at all.
    """
    datasets = cache.datasets()
    if not datasets:
        raise PipelineError(f"{cache.root} holds no features yet: run 'mser extract' first")
    if name not in datasets:
        raise unknown(f"dataset (in {cache.root})", name, datasets)


def require_most(cache: FeatureCache, corpus: Corpus, option: str) -> None:
    """Check that a new version of a corpus still has at least half of the utterances in the cache.

    Raises:
        UsageError: most are gone; ``option`` of the command line allows that.
    """
    try:
        before = cache.corpus(corpus.name).id
    except CacheError:  # there is none, or it is damaged
        return
    gone = set(before) - {utterance.id for utterance in corpus.utterances}
    if 2 * len(gone) > len(before):
        raise UsageError(
            f"{len(gone)} of the {len(before)} utterances of '{corpus.name}' in {cache.root} are "
            f"not in the new one, such as '{min(gone)}': give another name, or {option} if the new "
            "corpus replaces the old one"
        )
