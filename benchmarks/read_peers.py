"""Feature stores of other projects, through their own writers and readers, where installed.

Both keep float16 and every bit of it, as they are asked here.
"""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mser.benchmarks.read_methods import CONTENDERS, Contender, Way, all_states, is_one
from mser.benchmarks.synthetic_features import DIM, DTYPE, LAYERS, Array, Utterances

PACKAGES = ("lhotse", "datasets")


def contenders() -> tuple[dict[str, Contender], dict[str, str]]:
    """All ways that can be taken here, and of each peer that is missing the reason."""
    found, missing = dict(CONTENDERS), {}
    for package in PACKAGES:
        try:
            import_module(package)
        except ImportError as error:
            missing[package] = " ".join(str(error).split())
        else:
            found |= PEERS[package]
    return found, missing


# lhotse: an array an utterance. Its readers cut along the first axis, which suits (layers, ...).


def write_lhotse(writer: str, folder: Path, made: Utterances) -> None:
    with lhotse_io(writer)(folder / "features") as out:
        keys = [out.write(str(at), states) for at, states in enumerate(all_states(made))]
        (folder / "manifest.json").write_text(json.dumps([out.storage_path, keys]))


def open_lhotse(reader: str, fresh: bool, folder: Path, made: Utterances) -> Way:
    path, keys = json.loads((folder / "manifest.json").read_text())
    read = lhotse_io(reader)(path).read

    def get(batch: list[int], layers: slice) -> Iterable[Array]:
        first = layers.start or 0
        return (read(keys[at], first, layers.stop) for at in batch)

    return Way(get, fresh)


def lhotse_io(name: str) -> Any:
    return getattr(import_module("lhotse.features.io"), name)


# Hugging Face datasets: an Arrow file that is mapped. Only the first axis of its arrays may vary,
# so all layers of an utterance are (frames, layers, dim), or each layer is a column of its own.


def write_array(folder: Path, made: Utterances) -> None:
    column = _datasets().Array3D((None, LAYERS, DIM), DTYPE)
    rows = ({"hidden_states": one.swapaxes(0, 1)} for one in all_states(made))
    _write_rows(folder, {"hidden_states": column}, rows)


def write_columns(folder: Path, made: Utterances) -> None:
    columns = {_column(at): _datasets().Array2D((None, DIM), DTYPE) for at in range(LAYERS)}
    rows = ({_column(at): one[at] for at in range(LAYERS)} for one in all_states(made))
    _write_rows(folder, columns, rows)


def _write_rows(folder: Path, columns: Mapping[str, Any], rows: Iterable[dict[str, Array]]) -> None:
    writer = import_module("datasets.arrow_writer").ArrowWriter
    path, features = str(folder / "features.arrow"), _datasets().Features(columns)
    with writer(path=path, features=features, writer_batch_size=32) as out:
        for row in rows:
            out.write(row)
        out.finalize()


def open_array(folder: Path, made: Utterances) -> Way:
    rows = _rows(folder)

    def get(batch: list[int], layers: slice) -> Iterable[Array]:
        return (one[:, layers].swapaxes(0, 1) for one in rows[batch]["hidden_states"])

    return Way(get, fresh=True)


def open_columns(folder: Path, made: Utterances) -> Way:
    rows = _rows(folder)
    columns = [rows.select_columns([_column(at)]) for at in range(LAYERS)]

    def get(batch: list[int], layers: slice) -> Iterable[Array]:
        if is_one(layers):
            found = columns[layers.start][batch][_column(layers.start)]
            return (one[None] for one in found)
        every = rows[batch]
        return map(np.stack, zip(*(every[_column(at)] for at in range(LAYERS)), strict=True))

    return Way(get, fresh=True)


def _rows(folder: Path) -> Any:
    """The rows as NumPy's arrays, which are float32 unless float16 is asked for."""
    rows = _datasets().Dataset.from_file(str(folder / "features.arrow"))
    return rows.with_format("numpy", dtype=np.float16)


def _datasets() -> Any:
    return import_module("datasets")


def _column(layer: int) -> str:
    return f"layer_{layer}"


PEERS = {
    "lhotse": {
        "lhotse, NumpyHdf5": Contender(
            "lhotse-hdf5",
            partial(write_lhotse, "NumpyHdf5Writer"),
            partial(open_lhotse, "NumpyHdf5Reader", True),
        ),
        "lhotse, NumpyFiles": Contender(
            "lhotse-files",
            partial(write_lhotse, "NumpyFilesWriter"),
            partial(open_lhotse, "NumpyFilesReader", True),
        ),
    },
    "datasets": {
        "datasets, a column a layer": Contender("datasets-columns", write_columns, open_columns),
        "datasets, one column": Contender("datasets-array", write_array, open_array),
    },
}
