"""Forged caches, and everything that can be done with a cache."""

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mser.cache import (
    CacheError,
    Entry,
    EntryWriter,
    FeatureCache,
    collect_garbage,
    convert,
    info,
    listing,
    verify,
    verify_all,
)
from mser.cache.index import _name as index_name
from mser.tests.support.cache_entries import Array, array, fill, path_of, same_bits, spec

Edit = Callable[[Path], object]
WHOLE = {"a": array(5), "b": array(6, 3)}


def content(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


@cache
def template(store: str, compression: str) -> Path:
    """A cache that is made once, to be copied."""
    root = Path(tempfile.mkdtemp(prefix="mser-test-"))
    atexit.register(shutil.rmtree, root)
    fill(root, [WHOLE], encoder="whole", identity={})
    fill(root, [{"a": array(1), "b": array(2)}, {"c": array(3)}], True, store, compression)
    return root


def make(tmp_path: Path, store: str = "zarr", compression: str = "none") -> EntryWriter:
    """An entry to be forged, and an undamaged one beside it."""
    root = shutil.copytree(template(store, compression), tmp_path / "cache")
    return FeatureCache(root).existing(spec(), {"made by": "a test"}, store, compression)


def refused(call: Callable[[], object]) -> str:
    """Check that a call raises an error of the cache, and return its sentence."""
    with pytest.raises(CacheError) as raised:
        call()
    message = str(raised.value)
    assert message
    assert "\n" not in message
    return message


def refused_or_right(entry: Entry, id: str, states: Array, name: str) -> None:
    """A forged value may also be one that a read does not use."""
    try:
        stored = entry[id]
    except CacheError:
        assert name in refused(lambda: entry[id])
    else:
        assert same_bits(stored, states)


def survive(writer: EntryWriter) -> None:
    """Do everything with a forged cache: it raises only ``CacheError``, and damages nothing."""
    features = FeatureCache(path_of(writer).parents[1])
    assert str(listing(features))
    assert verify_all(features.entry_folders("made-up"), 1).as_json()
    for folder in features.entry_folders("made-up"):
        if "whole" not in folder.name:
            use(replace(writer, folder=folder))
    for call in (
        lambda: features.open("made-up"),
        lambda: features.entries("made-up"),
        lambda: collect_garbage(features, delete=True, minimum_age=0),
    ):
        with suppress(CacheError):
            call()
    assert str(listing(features))
    entry = features.open("made-up", "whole")
    assert all(same_bits(entry[id], states) for id, states in WHOLE.items())
    assert verify(entry.folder).damage == []


def use(writer: EntryWriter) -> None:
    """Do everything with an entry."""
    folder = writer.folder
    for call in (
        lambda: Entry(folder).read(Entry(folder).ids),
        lambda: Entry(folder).quarantine,
        lambda: Entry(folder).provenance,
        lambda: info(Entry(folder)),
        lambda: convert(Entry(folder), "hdf5", "none"),
        writer.committed,
        lambda: writer.publish("0" * 12),
        lambda: verify(folder, repair=True),
    ):
        with suppress(CacheError):
            call()


def forge_index(entry: Path, content: bytes) -> None:
    """Replace the index, and its name in the record."""
    record = json.loads((entry / "entry.json").read_text())
    (entry / record["index"]).unlink()
    (entry / index_name(content)).write_bytes(content)
    (entry / "entry.json").write_text(json.dumps({**record, "index": index_name(content)}))


def parquet(table: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def rows(entry: Path) -> list[dict[str, Any]]:
    folder = FeatureCache(entry.parents[1]).root / "made-up" / entry.name
    table: list[dict[str, Any]] = Entry(folder).index.table.to_pylist()
    return table


def with_column(entry: Path, column: str, value: object, kind: Any = None) -> bytes:
    table = pa.Table.from_pylist(rows(entry))
    position = table.column_names.index(column)
    return parquet(table.set_column(position, column, pa.array([value] * len(table), kind)))
