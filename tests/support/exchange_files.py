"""Features in the forms of other tools, their manifest, and imports of them."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mser.cache import Entry, FeatureCache
from mser.pipeline.errors import PipelineError
from mser.pipeline.exchange import ImportSettings, import_features

Array = np.ndarray[Any, Any]

CLASSES = ("angry", "happy", "neutral", "sad")
SPLITS = ("train", "train", "train", "train", "train", "train", "validation", "test")
IDS = tuple(f"{split}/dia{n // 4}_utt{n}" for n in range(64) for split in [SPLITS[n // 8]])
DIM = 6


def label(id: str) -> str:
    return CLASSES[int(id.rpartition("utt")[2]) % 4]


def features(
    ids: Sequence[str] = IDS, layers: int | None = 2, dtype: str = "float32"
) -> dict[str, Array]:
    """Hidden states that depend on the label: (layers, frames, dim) or (frames, dim)."""
    noise = np.random.default_rng(0)
    arrays = {}
    for number, id in enumerate(ids):
        shape = (2 + number % 3, DIM) if layers is None else (layers, 2 + number % 3, DIM)
        arrays[id] = noise.normal(size=shape).astype(dtype)
        arrays[id][..., CLASSES.index(label(id))] += 4
    return arrays


def write_csv(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def manifest(path: Path, ids: Sequence[str] = IDS) -> Path:
    return write_csv(
        path,
        [
            {"id": id, "label": label(id), "split": id.split("/")[0], "dialogue": id.split("_")[0]}
            for id in ids
        ],
    )


def as_folder(folder: Path, arrays: Mapping[str, Array]) -> Path:
    for id, array in arrays.items():
        file = folder / f"{id}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, array)
    return folder


def concatenated(arrays: Mapping[str, Array]) -> tuple[Array, list[int]]:
    lengths = [array.shape[-2] for array in arrays.values()]
    return np.concatenate(list(arrays.values()), axis=-2), lengths


def as_npz(path: Path, arrays: Mapping[str, Array], packed: bool = False) -> Path:
    feats, lengths = concatenated(arrays)
    save = np.savez_compressed if packed else np.savez
    save(path, feats=feats, lengths=np.array(lengths), keys=np.array(list(arrays)))
    return path


def as_emotion2vec(path: Path, arrays: Mapping[str, Array], emo: bool = True) -> Path:
    feats, lengths = concatenated(arrays)
    np.save(path, feats)
    path.with_suffix(".lengths").write_text("".join(f"{length}\n" for length in lengths))
    if emo:
        lines = [f"{id}\t{label(id)}\n" for id in arrays]
        path.with_suffix(".emo").write_text("".join(lines))
    return path


def settings(tmp_path: Path, source: Path, **changes: Any) -> ImportSettings:
    """An import into ``tmp_path/cache`` with the manifest ``tmp_path/manifest.csv``."""
    fields: dict[str, Any] = {
        "cache": str(tmp_path / "cache"),
        "dataset": "theirs",
        "encoder": "their/encoder",
        "manifest": manifest(tmp_path / "manifest.csv"),
        **changes,
    }
    return ImportSettings(source, **fields)


def entry_of(tmp_path: Path, **selection: Any) -> Entry:
    return FeatureCache(tmp_path / "cache").open("theirs", **selection)


def assert_same(entry: Entry, arrays: Mapping[str, Array], dtype: str) -> None:
    assert list(entry.ids) == sorted(arrays)
    for id, array in arrays.items():
        expected = array if array.ndim == 3 else array[None]
        assert entry[id].dtype == dtype
        np.testing.assert_array_equal(entry[id], expected.astype(dtype))


def refusal(wanted: ImportSettings, kind: type[Exception] = PipelineError) -> str:
    """The message of an import that fails with exactly this exception, in one line."""
    with pytest.raises(kind) as raised:
        import_features(wanted)
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value)
    return str(raised.value)
