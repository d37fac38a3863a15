"""The part of an entry that is exported: all utterances, in some or all of its layers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...cache import Entry
from ...cache.formats.arrays import Array
from ..corpora import Utterance
from ..corpora.manifest import from_table
from ..progress import progress


@dataclass(frozen=True)
class Selection:
    """The features of an entry in ``layers``, the encoder's own numbers of stored layers."""

    entry: Entry
    layers: tuple[int, ...]
    manifest: Callable[[], Any]

    @property
    def bytes(self) -> int:
        """The size of all features in bytes."""
        return sum(self.size(id) for id in self.entry.ids)

    @cached_property
    def utterances(self) -> dict[str, Utterance]:
        """The utterances of the manifest, by id."""
        corpus, _ = from_table(self.manifest())
        return {utterance.id: utterance for utterance in corpus.utterances}

    def size(self, id: str) -> int:
        """Return the size of the features of one utterance in bytes."""
        spec = self.entry.spec
        per_layer = spec.read_bytes_per_frame // len(spec.layers)
        return self.entry.length(id) * per_layer * len(self.layers)

    def __iter__(self) -> Iterator[tuple[str, Array]]:
        """Yield each utterance's id and features, (layers, frames, dim), contiguous in memory."""
        with progress(len(self.entry.ids), "exporting", "utterance") as bar:
            for id in self.entry.ids:
                (array,) = self.entry.read([id], self.layers)
                yield id, np.ascontiguousarray(array)
                bar.update()

    def describe(self) -> dict[str, Any]:
        """Return dataset, modality, encoder, layers, dim and the arrays' dtype, as JSON values."""
        spec = self.entry.spec
        return {
            "dataset": spec.dataset,
            "modality": spec.modality,
            "encoder": spec.encoder,
            "layers": list(self.layers),
            "dim": spec.dim,
            "dtype": spec.read_dtype,
        }
