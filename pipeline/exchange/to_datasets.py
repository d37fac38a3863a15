"""Export to a folder for ``datasets.load_from_disk``: features and the columns of the manifest."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...cache.formats.arrays import Array
from ..errors import PipelineError
from .selection import Selection

_COLUMNS = ("text", "label", "speaker", "session", "dialogue", "split")
_SHARD = "500MB"  # the most that the library has in memory while it saves


def write_datasets(selection: Selection, folder: Path) -> None:
    """Write a ``DatasetDict`` by split if every utterance has one, else a ``Dataset``.

    The utterances are written one by one into an Arrow file, which the library maps into memory
    and saves in its own format. Nothing is downloaded, and nothing is written elsewhere.
    """
    datasets = _library()
    scratch = folder / ".arrow"
    scratch.mkdir()
    info = datasets.DatasetInfo(description=json.dumps(selection.describe()))
    parts = {
        split: datasets.Dataset.from_file(str(file), info=info, split=split)
        for split, file in _write_arrow(selection, scratch).items()
    }
    whole = parts[None] if None in parts else datasets.DatasetDict(parts)
    with _quiet(datasets):
        whole.save_to_disk(str(folder), max_shard_size=_SHARD)
    shutil.rmtree(scratch)


def _library() -> Any:
    try:
        return import_module("datasets")
    except ImportError as error:
        raise PipelineError(
            f"this format needs Hugging Face's datasets ({error}): pip install 'mser[datasets]'"
        ) from error


def _write_arrow(selection: Selection, folder: Path) -> dict[str | None, Path]:
    """Write the rows into one file per split, or one for all, and return the files by split."""
    utterances = selection.utterances
    splits = {getattr(utterances.get(id), "split", None) for id in selection.entry.ids}
    by_split = None not in splits
    values = pa.float16() if selection.entry.spec.read_dtype == "float16" else pa.float32()
    schema = pa.schema(
        [
            *((column, pa.string()) for column in ("id", *_COLUMNS)),
            ("hidden_states", pa.list_(pa.list_(pa.list_(values)))),
        ]
    )
    names = splits if by_split else {None}
    files = {name: folder / f"{name or 'all'}.arrow" for name in names}
    with ExitStack() as stack:
        streams = {
            name: stack.enter_context(pa.ipc.new_stream(str(file), schema))
            for name, file in files.items()
        }
        for id, array in selection:
            utterance = utterances.get(id)
            cells = [[getattr(utterance, column, None)] for column in _COLUMNS]
            row = pa.record_batch([[id], *cells, _nested(array)], schema=schema)
            streams[utterance.split if by_split and utterance else None].write_batch(row)
    return files


def _nested(array: Array) -> Any:
    """Return (layers, frames, dim) as one nested Arrow list, without Python objects per value."""
    nested: Any = pa.array(array.reshape(-1))
    for length in array.shape[::-1]:
        bounds: Any = pa.array(np.arange(0, len(nested) + 1, length, dtype=np.int32))
        nested = pa.ListArray.from_arrays(bounds, nested)
    return nested


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Switch off the progress bar of the library; mser shows its own."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
