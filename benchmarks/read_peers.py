"""Feature stores of other projects, with their own writers and readers, if they are installed.

Both are set so that they keep float16 without loss.
"""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mser.benchmarks.read_methods import (
    METHODS,
    OpenStore,
    ReadMethod,
    is_single_layer,
    utterance_states,
)
from mser.benchmarks.synthetic_features import DIM, DTYPE, LAYERS, Array, UtteranceLayout

PACKAGES = ("lhotse", "datasets")


def available_methods() -> tuple[dict[str, ReadMethod], dict[str, str]]:
    """Return all methods that run here, and for each missing package the reason."""
    available, missing = dict(METHODS), {}
    for package in PACKAGES:
        try:
            import_module(package)
        except ImportError as error:
            missing[package] = " ".join(str(error).split())
        else:
            available |= PEERS[package]
    return available, missing


# lhotse: one array per utterance. Its readers cut along the first axis, here the layers.


def write_lhotse(writer: str, folder: Path, layout: UtteranceLayout) -> None:
    with lhotse_io(writer)(folder / "features") as out:
        keys = [out.write(str(n), states) for n, states in enumerate(utterance_states(layout))]
        (folder / "manifest.json").write_text(json.dumps([out.storage_path, keys]))


def open_lhotse(reader: str, folder: Path, layout: UtteranceLayout) -> OpenStore:
    path, keys = json.loads((folder / "manifest.json").read_text())
    read = lhotse_io(reader)(path).read

    def get(batch: list[int], layers: slice) -> Iterable[Array]:
        first = layers.start or 0
        return (read(keys[index], first, layers.stop) for index in batch)

    return OpenStore(get, returns_copies=True)


def lhotse_io(name: str) -> Any:
    return getattr(import_module("lhotse.features.io"), name)


# Hugging Face datasets: an Arrow file that is memory-mapped. Only the first axis of its arrays may
# vary, so one column holds (frames, layers, dim), or each layer has a column of its own.


def write_array(folder: Path, layout: UtteranceLayout) -> None:
    column = _datasets().Array3D((None, LAYERS, DIM), DTYPE)
    rows = ({"hidden_states": states.swapaxes(0, 1)} for states in utterance_states(layout))
    _write_rows(folder, {"hidden_states": column}, rows)


def write_columns(folder: Path, layout: UtteranceLayout) -> None:
    columns = {_column(layer): _datasets().Array2D((None, DIM), DTYPE) for layer in range(LAYERS)}
    rows = (
        {_column(layer): states[layer] for layer in range(LAYERS)}
        for states in utterance_states(layout)
    )
    _write_rows(folder, columns, rows)


def _write_rows(folder: Path, columns: Mapping[str, Any], rows: Iterable[dict[str, Array]]) -> None:
    writer = import_module("datasets.arrow_writer").ArrowWriter
    path, features = str(folder / "features.arrow"), _datasets().Features(columns)
    with writer(path=path, features=features, writer_batch_size=32) as out:
        for row in rows:
            out.write(row)
        out.finalize()


def open_array(folder: Path, layout: UtteranceLayout) -> OpenStore:
    rows = _rows(folder)

    def get(batch: list[int], layers: slice) -> Iterable[Array]:
        return (states[:, layers].swapaxes(0, 1) for states in rows[batch]["hidden_states"])

    return OpenStore(get, returns_copies=True)


def open_columns(folder: Path, layout: UtteranceLayout) -> OpenStore:
    rows = _rows(folder)
    columns = [rows.select_columns([_column(layer)]) for layer in range(LAYERS)]

    def get(batch: list[int], layers: slice) -> Iterable[Array]:
        if is_single_layer(layers):
            column = columns[layers.start][batch][_column(layers.start)]
            return (states[None] for states in column)
        every = rows[batch]
        utterances = zip(*(every[_column(layer)] for layer in range(LAYERS)), strict=True)
        return map(np.stack, utterances)

    return OpenStore(get, returns_copies=True)


def _rows(folder: Path) -> Any:
    """Open the rows as NumPy arrays; without a dtype datasets would return float32."""
    rows = _datasets().Dataset.from_file(str(folder / "features.arrow"))
    return rows.with_format("numpy", dtype=np.float16)


def _datasets() -> Any:
    return import_module("datasets")


def _column(layer: int) -> str:
    return f"layer_{layer}"


PEERS = {
    "lhotse": {
        "lhotse, NumpyHdf5": ReadMethod(
            "lhotse-hdf5",
            partial(write_lhotse, "NumpyHdf5Writer"),
            partial(open_lhotse, "NumpyHdf5Reader"),
        ),
        "lhotse, NumpyFiles": ReadMethod(
            "lhotse-files",
            partial(write_lhotse, "NumpyFilesWriter"),
            partial(open_lhotse, "NumpyFilesReader"),
        ),
    },
    "datasets": {
        "datasets, one column per layer": ReadMethod(
            "datasets-columns", write_columns, open_columns
        ),
        "datasets, one column for all layers": ReadMethod(
            "datasets-array", write_array, open_array
        ),
    },
}
