"""Forged Zarr shards are refused with a reason, and other shards stay readable."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mser.cache import CacheError, Entry
from mser.tests.support.cache_entries import DIM, LAYERS, array, path_of, same_bits
from mser.tests.support.hostile_caches import (
    forge_index,
    make,
    refused,
    refused_or_right,
    survive,
    with_column,
)

pytestmark = [pytest.mark.usefixtures("unpickled"), pytest.mark.exhaustive]

# Shards of Zarr -----------------------------------------------------------------------------------


def change(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    metadata = json.loads(file.read_text())
    edit(metadata)
    file.write_text(json.dumps(metadata))


def metadata_of(entry: Path) -> Path:
    (file,) = entry.glob("shards/00000-*/hidden_states/zarr.json")
    return file


def inner(metadata: dict[str, Any]) -> dict[str, Any]:
    configuration: dict[str, Any] = metadata["codecs"][0]["configuration"]
    return configuration


def put(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda metadata: metadata.update({name: value})


def put_inner(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda metadata: inner(metadata).update({name: value})


BYTES: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
BIG: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "big"}}
TYPES: list[Any] = [
    "object", "O", "variable_length_utf8", "variable_length_bytes", "string", "float64", "int16",
    "complex64", "bool", "r16", "V2", ">f2", "f2,f2", "(3,)f2", "", 3, None, [], ["f2"], {},
    {"name": "numpy.datetime64", "configuration": {"unit": "s", "scale_factor": 1}},
    {"name": "structured", "configuration": {"fields": [["a", "float16"]]}},
]  # fmt: skip
SHAPES: list[Any] = [
    [-3, 4, 4], [3, -4, 4], [0, 4, 4], [3, 0, 4], [3, 4], [3, 4, 4, 1], [], None, "abc", 3, {},
    [3.0, 4, 4], ["3", "4", "4"], [10**30] * 3, [3, None, 4], [2, 4, 4], [3, 4, 5],
]  # fmt: skip
CODECS: list[Any] = [
    [], None, 3, {}, [3], [BYTES], [BYTES, {"name": "zstd", "configuration": {}}], [{"name": "x"}],
    [{"name": "sharding_indexed"}],
    [{"name": "sharding_indexed", "configuration": {"codecs": "bytes"}}],
]  # fmt: skip
INNER: list[Any] = [
    [], None, 3, {}, [3], ["bytes"], [BIG], [{"name": "bytes"}],
    [BYTES, {"name": "numcodecs.pickle"}], [BYTES, {"name": "numcodecs.zlib"}],
    [BYTES, {"name": "numcodecs.json2"}], [BYTES, {"name": "vlen-utf8"}], [{"name": "vlen-utf8"}],
    [BYTES, {"name": "gzip", "configuration": {"level": 1}}], [BYTES, {"name": "crc32c"}],
    [{"name": "transpose", "configuration": {"order": [2, 1, 0]}}, BYTES],
    [BYTES, {"name": "zstd"}, {"name": "zstd"}], [{"name": "zstd"}, BYTES],
    [BYTES, {"name": "os.system"}],
]  # fmt: skip
ZARR = {
    **{f"data_type {value}": put("data_type", value) for value in TYPES},
    **{f"shape {value}": put("shape", value) for value in SHAPES},
    **{f"codecs {value}": put("codecs", value) for value in CODECS},
    **{f"inner {value}": put_inner("codecs", value) for value in INNER},
    "no shape": lambda metadata: metadata.pop("shape"),
    "no data_type": lambda metadata: metadata.pop("data_type"),
    "no codecs": lambda metadata: metadata.pop("codecs"),
}


@pytest.mark.parametrize("edit", ZARR.values(), ids=ZARR)
def test_a_forged_zarr_array_is_refused(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    writer = make(tmp_path)
    change(metadata_of(path_of(writer)), edit)
    entry = Entry(writer.folder)
    shard = metadata_of(path_of(writer)).parents[1].name
    assert shard in refused(lambda: entry["a"])
    assert shard in refused(lambda: entry.read(["b"], [0]))
    assert same_bits(entry["c"], array(3)), "the other shard is whole"
    survive(writer)
    assert same_bits(Entry(writer.folder)["c"], array(3))


# Metadata that only compressed arrays use, or only zarr-python reads.
def grid(*chunk: int) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": chunk}}


def keys(separator: str) -> dict[str, Any]:
    return {"name": "default", "configuration": {"separator": separator}}


DECODED = {
    **{name: edit for name, edit in ZARR.items() if name.startswith(("inner", "shape"))},
    "frames 3": put("shape", [LAYERS, 3, DIM]),
    "frames many": put("shape", [LAYERS, 10**15, DIM]),
    "frames too many": put("shape", [LAYERS, 10**30, DIM]),
    "grid small": put("chunk_grid", grid(1, 1, 1)),
    "grid huge": put("chunk_grid", grid(3, 10**12, 4)),
    "grid none": put("chunk_grid", None),
    "grid unknown": put("chunk_grid", {"name": "os.system", "configuration": {}}),
    "chunk huge": put_inner("chunk_shape", [1, 10**12, 4]),
    "chunk negative": put_inner("chunk_shape", [1, -4, 4]),
    "chunk other": put_inner("chunk_shape", [3, 2, 4]),
    "index at start": put_inner("index_location", "start"),
    "index nowhere": put_inner("index_location", "../.."),
    "index of nothing": put_inner("index_codecs", []),
    "index pickled": put_inner("index_codecs", [{"name": "numcodecs.pickle"}]),
    "index compressed": put_inner("index_codecs", [BYTES, {"name": "zstd", "configuration": {}}]),
    "keys": put("chunk_key_encoding", keys(".")),
    "keys abroad": put("chunk_key_encoding", keys("/../")),
    "keys v2": put("chunk_key_encoding", {"name": "v2"}),
    "keys unknown": put("chunk_key_encoding", {"name": "x"}),
    "transformers": put("storage_transformers", [{"name": "x"}]),
    "format 2": put("zarr_format", 2),
    "format 99": put("zarr_format", 99),
    "a group": put("node_type", "group"),
    "fill_value": put("fill_value", "x"),
    "unknown": put("x", {"must_understand": True}),
    "other dtype": put("data_type", "float32"),
}


@pytest.mark.parametrize("edit", DECODED.values(), ids=DECODED)
def test_a_compressed_array_is_never_read_wrongly(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    writer = make(tmp_path, "zarr", "zstd")
    change(metadata_of(path_of(writer)), edit)
    entry = Entry(writer.folder)
    shard = metadata_of(path_of(writer)).parents[1].name
    refused_or_right(entry, "a", array(1), shard)
    refused_or_right(entry, "b", array(2), shard)
    assert same_bits(entry["c"], array(3))
    survive(writer)


def test_an_array_that_would_take_all_memory_is_refused(tmp_path: Path) -> None:
    writer = make(tmp_path, "zarr", "zstd")
    change(metadata_of(path_of(writer)), put("shape", [LAYERS, 10**15, DIM]))
    forge_index(path_of(writer), with_column(path_of(writer), "length", 10**14))
    refused(lambda: Entry(writer.folder)["a"])
    survive(writer)


def put_row(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda metadata: metadata["attributes"].update({name: value})


ROWS_OF_ZARR: dict[str, list[Any]] = {
    "ids": [None, "ab", 3, [1, 2], ["a"], ["a", None], ["a", ["b"]], ["a", "\ud800"], {}],
    "offsets": [None, "02", [0], [0, -1], [0, None], [0, 2**63], [0, 0.5], ["x", "y"]],
    "lengths": [None, [2], [2, 0], [2, -5], [2, 10**30], [[2], [2]]],
    "checksums": [None, [1, 2], ["x"], {}],
    "content_hashes": [None, [None, None]],
    "written": [None, 3, [], {}],
}
ATTRIBUTES = {
    "none": lambda metadata: metadata.pop("attributes"),
    "list": put("attributes", []),
    **{
        f"{name} {value}": put_row(name, value)
        for name, values in ROWS_OF_ZARR.items()
        for value in values
    },
}


@pytest.mark.parametrize("edit", ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_forged_rows_of_a_shard_leave_other_shards_readable(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    writer = make(tmp_path)
    (shard,) = path_of(writer).glob("shards/00000-*")
    change(shard / "zarr.json", edit)
    assert same_bits(Entry(writer.folder)["a"], array(1)), "the index has the position too"
    for file in path_of(writer).glob("index-*"):
        file.unlink()
    assert "c" in writer.committed()
    writer.publish()
    entry = Entry(writer.folder)
    assert same_bits(entry["c"], array(3))
    for id in set(entry.ids) - {"c"}:
        with suppress(CacheError):
            assert len(entry[id]) == LAYERS
    survive(writer)
    assert same_bits(Entry(writer.folder)["c"], array(3))
