"""Caches that somebody has forged, and what everybody does with them."""

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
    """Made once, to be copied."""
    root = Path(tempfile.mkdtemp(prefix="mser-test-"))
    atexit.register(shutil.rmtree, root)
    fill(root, [WHOLE], encoder="whole", identity={})
    fill(root, [{"a": array(1), "b": array(2)}, {"c": array(3)}], True, store, compression)
    return root


def make(tmp_path: Path, store: str = "zarr", compression: str = "none") -> EntryWriter:
    """An entry to be forged, and a whole one beside it."""
    root = shutil.copytree(template(store, compression), tmp_path / "cache")
    return FeatureCache(root).existing(spec(), {"made by": "a test"}, store, compression)


def refused(ask: Callable[[], object]) -> str:
    """It says why, in one sentence."""
    with pytest.raises(CacheError) as raised:
        ask()
    said = str(raised.value)
    assert said
    assert "\n" not in said
    return said


def refused_or_right(entry: Entry, id: str, states: Array, name: str) -> None:
    """What is said wrongly may also be what is not needed."""
    try:
        found = entry[id]
    except CacheError:
        assert name in refused(lambda: entry[id])
    else:
        assert same_bits(found, states)


def survive(writer: EntryWriter) -> None:
    """Whatever is done with such a cache: what is whole stays whole, and nothing else is raised."""
    features = FeatureCache(path_of(writer).parents[1])
    assert str(listing(features))
    assert verify_all(features.entry_folders("made-up"), 1).as_json()
    for place in features.entry_folders("made-up"):
        if "whole" not in place.name:
            use(replace(writer, folder=place))
    for ask in (
        lambda: features.open("made-up"),
        lambda: features.entries("made-up"),
        lambda: collect_garbage(features, delete=True, minimum_age=0),
    ):
        with suppress(CacheError):
            ask()
    assert str(listing(features))
    entry = features.open("made-up", "whole")
    assert all(same_bits(entry[id], states) for id, states in WHOLE.items())
    assert verify(entry.folder).damage == []


def use(writer: EntryWriter) -> None:
    """Do with an entry what can be done with one."""
    folder = writer.folder
    for ask in (
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
            ask()


def forge_index(entry: Path, content: bytes) -> None:
    """Put this in the place of the index, with all that names it."""
    record = json.loads((entry / "entry.json").read_text())
    (entry / record["index"]).unlink()
    (entry / index_name(content)).write_bytes(content)
    (entry / "entry.json").write_text(json.dumps({**record, "index": index_name(content)}))


def parquet(table: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def rows(entry: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Entry(
        FeatureCache(entry.parents[1]).root / "made-up" / entry.name
    ).index.table.to_pylist()
    return found


def with_column(entry: Path, column: str, value: object, kind: Any = None) -> bytes:
    table = pa.Table.from_pylist(rows(entry))
    at = table.column_names.index(column)
    return parquet(table.set_column(at, column, pa.array([value] * len(table), kind)))
