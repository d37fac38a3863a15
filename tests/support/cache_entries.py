"""Small made-up entries of a feature cache."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mser.cache import (
    COMPRESSIONS,
    FORMATS,
    Entry,
    EntrySpec,
    EntryWriter,
    FeatureCache,
    UtteranceFeatures,
)

Array = np.ndarray[Any, Any]

LAYERS, DIM = 3, 4
FORMS = [(store, compression) for store in FORMATS for compression in COMPRESSIONS]
# For slow tests: both stores, uncompressed and compressed, and every compression once.
FOUR = [("zarr", "none"), ("zarr", "zstd"), ("hdf5", "none"), ("hdf5", "blosc")]
ODD_IDS = [
    "train/dia0_utt0",
    "../../etc/passwd",
    "..",
    "/",
    "a\nb",
    "tab\tand space ",
    "Grüße/日本語/🙂",
    "\u2028",
    "C:\\con",
    "x" * 5000,
    "",
]


def spec(**changes: Any) -> EntrySpec:
    """The identity of a made-up entry."""
    fields: dict[str, Any] = {
        "dataset": "made-up",
        "modality": "speech",
        "encoder": "some/encoder",
        "identity": {"weights": "abc", "rate": 16000},
        "layers": tuple(range(LAYERS)),
        "dim": DIM,
        "dtype": "float16",
        **changes,
    }
    return EntrySpec(**fields)


def array(number: float, frames: int = 2, layers: int = LAYERS, dim: int = DIM) -> Array:
    """Hidden states that differ for each ``number``."""
    return number + np.arange(layers * frames * dim, dtype="float16").reshape(layers, frames, dim)


def fill(
    root: Path | str,
    shards: Iterable[Mapping[str, Array]],
    publish: bool = True,
    store: str = "zarr",
    compression: str = "none",
    **changes: Any,
) -> EntryWriter:
    """Write an entry of these shards."""
    writer = FeatureCache(root).writer(spec(**changes), {"made by": "a test"}, store, compression)
    for number, shard in enumerate(shards):
        writer.write_shard(
            number, [UtteranceFeatures(id, f"hash of {id}", a) for id, a in shard.items()]
        )
    if publish:
        writer.publish("0" * 12)
    return writer


def path_of(entry: Entry | EntryWriter) -> Path:
    """The local folder of an entry."""
    assert entry.folder.path is not None
    return entry.folder.path


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays are equal bit by bit, also in NaN and minus zero."""
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
