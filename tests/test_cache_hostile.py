"""Somebody else's cache: what it holds is data, is never run, and never leads outside of it."""

import atexit
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mser.cache import (
    CacheError,
    Entry,
    EntryWriter,
    FeatureCache,
    Features,
    collect,
    convert,
    info,
    listing,
    verify,
    verify_all,
)
from mser.cache.entry import spec_of
from mser.cache.index import _name as index_name
from mser.tests.cache_entries import (
    DIM,
    LAYERS,
    ODD_IDS,
    Array,
    array,
    fill,
    path_of,
    same_bits,
    spec,
)

Edit = Callable[[Path], object]
WHOLE = {"a": array(5), "b": array(6, 3)}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here depends on what a power cut leaves."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(autouse=True)
def unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is ever unpickled."""

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("something is unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder beside the cache, of which nobody reads, changes or deletes anything."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(array(99).tobytes() * 50)
    (folder / "thesis").mkdir()
    (folder / "thesis" / "thesis.tex").write_text("years of work")
    before = content(folder)
    yield folder
    assert content(folder) == before


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
    assert verify_all(features.places("made-up"), 1).as_json()
    for place in features.places("made-up"):
        if "whole" not in place.name:
            use(replace(writer, folder=place))
    for ask in (
        lambda: features.open("made-up"),
        lambda: features.entries("made-up"),
        lambda: collect(features, yes=True, young=0),
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


# entry.json ---------------------------------------------------------------------------------------


def forge_record(entry: Path, **changes: object) -> Path:
    """Change a record, and the entry's folder with it, so that its key is right if it has one."""
    file = entry / "entry.json"
    record = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps(record))
    with suppress(Exception):
        entry = entry.rename(entry.with_name(f"forged-{spec_of(record).key}"))
    return entry


# Nothing here names a file that is not the test's own: who runs the tests may be root.
ABSOLUTE = tempfile.gettempdir() + "/mser-test-there-is-no-such-file"
ABROAD = ["../../../outside/secret", "../../../outside/thesis", ABSOLUTE, "..", ".", ""]
INDEX = f"index-{'0' * 12}.parquet"
RECORDS: dict[str, list[object]] = {
    "index": [
        *ABROAD,
        f"{INDEX}/../../secret",
        f"{INDEX}\n",
        "index-x.parquet",
        None,
        3,
        ["x"],
        {},
    ],
    "layers": ["abc", 3, None, [], [-1], [1.5], ["1"], [True], {"0": 1}, [[0]]],
    "dim": [0, -4, 4.0, "4", None, True, [4], float("nan")],
    "dtype": ["object", "O", "float64", "<f2", ">f2", "f2,f2", "", 16, None, ["f2"]],
    "modality": ["..", "../x", "", "a/b", "/", "speech\n", 3, None],
    "identity": [[], "x", 3, None, ["weights"]],
    "encoder": [3, None, [], {}, "\ud800"],
    "dataset": [3, None, [], {}],
    "manifest": [3, None, [], {}, "\ud800"],
    "published": [3, None, "", "yesterday", "2020-01-01"],
    "format": ["1", None, 99, -1, [1], {}],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in RECORDS.items() for value in values]
)
def test_a_forged_record_is_refused(
    tmp_path: Path, outside: Path, field: str, value: object
) -> None:
    writer = make(tmp_path)
    entry = forge_record(path_of(writer), **{field: value})
    said = refused(lambda: FeatureCache(tmp_path / "cache").entries("made-up"))
    assert str(entry) in said or field == "modality"
    survive(writer)
    assert outside.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"format": 1' + b"0" * 5000 + b"}",
        b"\xff\xfe",
        b"\0" * 100,
        b"3",
        b'"x"',
        b"null",
        b"",
        pickle.dumps({"format": 1}),
    ],
    ids=repr,
)
def test_a_record_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    writer = make(tmp_path)
    (path_of(writer) / "entry.json").write_bytes(content)
    assert "entry.json" in refused(lambda: Entry(writer.folder))
    assert "entry.json" in refused(lambda: FeatureCache(tmp_path / "cache").writer(writer.spec, {}))
    survive(writer)


@pytest.mark.parametrize("changes", [{"dim": 10**30}, {"layers": [0, 1]}, {"dtype": "float32"}])
def test_a_record_that_says_what_is_not_so_is_refused_when_it_is_read(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    writer = make(tmp_path)
    forge_record(path_of(writer), **changes)
    entry = FeatureCache(tmp_path / "cache").open("made-up", "some/encoder")
    assert "arrays differ" in refused(lambda: entry["a"])
    survive(writer)


@pytest.mark.parametrize("name", ABROAD)
def test_a_record_of_a_dataset_or_a_manifest_elsewhere(
    tmp_path: Path, outside: Path, name: str
) -> None:
    writer = make(tmp_path)
    forge_record(path_of(writer), dataset=name, manifest=name)
    cache = FeatureCache(tmp_path / "cache")
    refused(lambda: cache.read_manifest(name, "0" * 12))
    refused(lambda: cache.read_manifest("made-up", name))
    refused(lambda: cache.places(name))
    survive(writer)
    assert outside.exists()


def test_nothing_outside_is_deleted_by_who_publishes(tmp_path: Path, outside: Path) -> None:
    """A writer deletes the index that it replaces."""
    for abroad in [*ABROAD, str(outside / "thesis")]:
        writer = make(tmp_path)
        file = path_of(writer) / "entry.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "index": abroad}))
        writer.write_shard(9, [Features("new", "hash", array(1))])
        refused(lambda: writer.publish("0" * 12))  # noqa: B023
        assert (outside / "thesis" / "thesis.tex").exists()
        shutil.rmtree(tmp_path / "cache")


# The index ----------------------------------------------------------------------------------------


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


HASH = "0" * 32
SHARD_NAMES = [
    *ABROAD,
    f"00000-{HASH}/../../../../../outside/secret",
    f"../00000-{HASH}",
    f"00000-{HASH}\n",
    f"00000-{HASH}.h5/x",
    f"00000-{HASH}.",
    f"00000-{HASH}.h5.h5",
    f"00000-{HASH}.H5\0",
    f"{'0' * 300}x-{HASH}",
]
COLUMNS = ("id", "shard", "offset", "length", "content_hash", "checksum", "written")


def of(column: str, value: object, kind: Any = None) -> Callable[[Path], bytes]:
    return lambda entry: with_column(entry, column, value, kind)


def without(column: str) -> Callable[[Path], bytes]:
    return lambda entry: parquet(pa.Table.from_pylist(rows(entry)).drop_columns([column]))


INDEXES: dict[str, Callable[[Path], bytes]] = {
    **{f"shard {name!r}": of("shard", name) for name in SHARD_NAMES},
    **{f"offset {number}": of("offset", number) for number in (-1, -(2**62))},
    **{f"length {number}": of("length", number) for number in (0, -1, -(2**62))},
    **{f"{column} null": of(column, None, pa.string()) for column in COLUMNS},
    **{f"without {column}": without(column) for column in COLUMNS},
    "offset text": of("offset", "x"),
    "offset half": of("offset", 0.5),
    "offset list": of("offset", [0]),
    "offset huge": of("offset", 2**63, pa.uint64()),
    "id list": of("id", ["a"]),
    "id object": of("id", {"a": 1}),
    "id no text": of("id", b"\xff\xfe", pa.binary()),
    "shard list": of("shard", ["a"]),
    "no columns": lambda _: parquet(pa.table({})),
    "twice": lambda _: parquet(pa.table([["a"], ["a"]], names=["id", "id"])),
    "empty": lambda _: b"",
    "no parquet": lambda _: b"PAR1" + b"\0" * 100 + b"PAR1",
    "half": lambda entry: next(entry.glob("index-*")).read_bytes()[:-20],
    "pickle": lambda _: pickle.dumps({"id": ["a"]}),
}


@pytest.mark.parametrize("forged", INDEXES.values(), ids=INDEXES)
def test_a_forged_index_is_refused(
    tmp_path: Path, outside: Path, forged: Callable[[Path], bytes]
) -> None:
    writer = make(tmp_path)
    forge_index(path_of(writer), forged(path_of(writer)))
    assert "index-" in refused(lambda: Entry(writer.folder).index)
    refused(lambda: FeatureCache(tmp_path / "cache").open("made-up", "some/encoder"))
    survive(writer)
    # Its shards are whole, and say all that the index should have said.
    assert same_bits(Entry(writer.folder)["c"], array(3))
    assert outside.exists()


@pytest.mark.parametrize("suffix", ["", ".h5", ".hdf5", ".zarr", ".py"])
def test_an_index_that_names_a_shard_that_is_not_there(tmp_path: Path, suffix: str) -> None:
    writer = make(tmp_path)
    name = f"00000-{HASH}{suffix}"
    forge_index(path_of(writer), with_column(path_of(writer), "shard", name))
    assert name in refused(lambda: Entry(writer.folder)["a"])
    survive(writer)


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize(
    ("column", "value"),
    [("offset", 4), ("offset", 2**63 - 1), ("length", 5), ("length", 2**63 - 1), ("length", 10**9)],
)
def test_an_index_that_leads_beyond_a_shard_is_refused_when_it_is_read(
    tmp_path: Path, store: str, compression: str, column: str, value: int
) -> None:
    writer = make(tmp_path, store, compression)
    forge_index(path_of(writer), with_column(path_of(writer), column, value))
    entry = Entry(writer.folder)
    assert "'a' lies beyond its end" in refused(lambda: entry["a"])
    refused(lambda: entry.read(["a", "b"], [0]))
    survive(writer)
    assert same_bits(Entry(writer.folder)["c"], array(3))


def test_an_index_of_a_type_that_would_be_unpickled(tmp_path: Path) -> None:
    """Arrow once unpickled types of Python's that a file named."""
    writer = make(tmp_path)
    table = pa.Table.from_pylist(rows(path_of(writer)))
    fields = [
        field.with_metadata(
            {
                "ARROW:extension:name": "arrow.py_extension_type",
                "ARROW:extension:metadata": pickle.dumps(Path("x")),
            }
        )
        for field in table.schema
    ]
    forge_index(path_of(writer), parquet(table.cast(pa.schema(fields))))
    with suppress(CacheError):
        assert same_bits(Entry(writer.folder)["c"], array(3))
    survive(writer)


# Shards of Zarr -----------------------------------------------------------------------------------


def change(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    metadata = json.loads(file.read_text())
    edit(metadata)
    file.write_text(json.dumps(metadata))


def metadata_of(entry: Path) -> Path:
    (file,) = entry.glob("shards/00000-*/hidden_states/zarr.json")
    return file


def inner(metadata: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = metadata["codecs"][0]["configuration"]
    return found


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


# What only those need that are compressed, or are read by zarr-python.
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
    **{f"{name} {one}": put_row(name, one) for name, some in ROWS_OF_ZARR.items() for one in some},
}


@pytest.mark.parametrize("edit", ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_forged_rows_of_a_shard_take_nothing_else_away(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    writer = make(tmp_path)
    (shard,) = path_of(writer).glob("shards/00000-*")
    change(shard / "zarr.json", edit)
    assert same_bits(Entry(writer.folder)["a"], array(1)), "the index says it, too"
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


# Shards of HDF5 -----------------------------------------------------------------------------------


def hdf5_shard(entry: Path) -> Path:
    (file,) = entry.glob("shards/00000-*.h5")
    return file


def instead(array: Callable[[Any, Path], object], name: str = "hidden_states") -> Edit:
    """Put something else in the place of a dataset."""

    def edit(shard: Path) -> None:
        with h5py.File(shard, "a") as file:
            del file[name]
            array(file, shard.parents[4] / "outside")

    return edit


SHAPE = (LAYERS, 4, DIM)


def other_file(outside: Path) -> Path:
    """Features in a file that is not the shard."""
    path = outside.parent / "elsewhere.h5"
    with h5py.File(path, "w") as file:
        file["hidden_states"] = np.full(SHAPE, 99, "float16")
        file["utterances"] = "{}"
    return path


def virtual(file: Any, outside: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, "<f2")
    layout[:] = h5py.VirtualSource(other_file(outside), "hidden_states", SHAPE)
    file.create_virtual_dataset("hidden_states", layout)


def unknown_filter(file: Any, outside: Path) -> None:
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk(SHAPE)
    created.set_filter(300, h5py.h5z.FLAG_OPTIONAL, (1, 2))
    space = h5py.h5s.create_simple(SHAPE)
    kind = h5py.h5t.py_create(np.dtype("<f2"))
    h5py.h5d.create(file.id, b"hidden_states", kind, space, created)


def linked_within(file: Any, outside: Path) -> None:
    file["other"] = np.full(SHAPE, 99, "float16")
    file["hidden_states"] = h5py.SoftLink("/other")


def of_type(dtype: Any, shape: tuple[int, ...] = SHAPE) -> Edit:
    return instead(lambda file, _: file.create_dataset("hidden_states", shape, dtype))


def stored(**how: Any) -> Edit:
    data = np.full(SHAPE, 99, "float16")
    return instead(lambda file, _: file.create_dataset("hidden_states", data=data, **how))


def external(name: str) -> Edit:
    """Raw data that lie in another file."""

    def create(file: Any, outside: Path) -> None:
        where = [(str(outside / "secret"), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset(name, SHAPE, "<f2", external=where)

    return instead(create, name)


def link_abroad(name: str) -> Edit:
    return instead(
        lambda file, outside: file.__setitem__(name, h5py.ExternalLink(other_file(outside), name)),
        name,
    )


def put_hdf5(value: object, name: str = "hidden_states") -> Edit:
    return instead(lambda file, _: file.__setitem__(name, value), name)


def folder(shard: Path) -> None:
    shard.unlink()
    shard.mkdir()


def link(to: str) -> Edit:
    def edit(shard: Path) -> None:
        shard.unlink()
        shard.symlink_to(shard.name if to == "itself" else to)

    return edit


HDF5: dict[str, Edit] = {
    "external link": link_abroad("hidden_states"),
    "external storage": external("hidden_states"),
    "soft link": instead(linked_within),
    "dangling link": put_hdf5(h5py.SoftLink("/x")),
    "virtual": instead(virtual),
    "group": instead(lambda file, _: file.create_group("hidden_states")),
    "missing": instead(lambda *_: None),
    "text": of_type(h5py.string_dtype()),
    "opaque": of_type(np.dtype("V2")),
    "references": of_type(h5py.ref_dtype),
    "regions": of_type(h5py.regionref_dtype),
    "ragged": of_type(h5py.vlen_dtype("float16")),
    "compound": of_type(np.dtype([("a", "<f2")])),
    "enumeration": of_type(h5py.enum_dtype({"a": 1})),
    "subarray": of_type(np.dtype(("<f2", (2,)))),
    "int": of_type("<i2"),
    "double": of_type("<f8"),
    "complex": of_type("<c8"),
    "big": of_type(">f2"),
    "flat": of_type("<f2", (LAYERS, 4)),
    "deep": of_type("<f2", (*SHAPE, 1)),
    "scalar": of_type("<f2", ()),
    "no frames": of_type("<f2", (LAYERS, 0, DIM)),
    "no space": put_hdf5(h5py.Empty("<f2")),
    "other width": of_type("<f2", (LAYERS, 4, DIM + 1)),
    "deflate": stored(compression="gzip"),
    "lzf": stored(compression="lzf"),
    "shuffle": stored(shuffle=True),
    "unknown filter": instead(unknown_filter),
    "nothing": lambda shard: shard.write_bytes(b""),
    "no HDF5": lambda shard: shard.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 1000),
    "a text": lambda shard: shard.write_text("[]"),
    "pickle": lambda shard: shard.write_bytes(pickle.dumps([1])),
    "folder": folder,
    "link": link("../../../../outside/secret"),
    "link to itself": link("itself"),
}


@pytest.mark.parametrize("edit", HDF5.values(), ids=HDF5)
def test_a_forged_hdf5_shard_is_refused(tmp_path: Path, outside: Path, edit: Edit) -> None:
    writer = make(tmp_path, "hdf5")
    shard = hdf5_shard(path_of(writer))
    edit(shard)
    entry = Entry(writer.folder)
    assert shard.name in refused(lambda: entry["a"])
    assert shard.name in refused(lambda: entry.read(["b"], [0]))
    assert same_bits(entry["c"], array(3)), "the other shard is whole"
    survive(writer)
    assert same_bits(Entry(writer.folder)["c"], array(3))
    assert outside.exists()


def huge_text(file: Any, _: Path) -> None:
    file.create_dataset("utterances", (10**15,), h5py.string_dtype(), chunks=(1000,))


ROWS: dict[str, Edit] = {
    "external link": link_abroad("utterances"),
    "external storage": external("utterances"),
    "missing": instead(lambda *_: None, "utterances"),
    "group": instead(lambda file, _: file.create_group("utterances"), "utterances"),
    "huge": instead(huge_text, "utterances"),
    "number": put_hdf5(3, "utterances"),
    "empty": put_hdf5(h5py.Empty("S1"), "utterances"),
    "no JSON": put_hdf5("x", "utterances"),
    "no object": put_hdf5("[]", "utterances"),
    "deep": put_hdf5("[" * 100_000, "utterances"),
    "pickle": put_hdf5(np.void(pickle.dumps({"ids": ["a"]})), "utterances"),
}


@pytest.mark.parametrize("edit", ROWS.values(), ids=ROWS)
def test_forged_rows_of_an_hdf5_shard_take_nothing_else_away(
    tmp_path: Path, outside: Path, edit: Edit
) -> None:
    writer = make(tmp_path, "hdf5")
    edit(hdf5_shard(path_of(writer)))
    for file in path_of(writer).glob("index-*"):
        file.unlink()
    assert writer.committed().keys() == {"c"}
    writer.publish("1" * 12)
    entry = Entry(writer.folder)
    assert list(entry.ids) == ["c"]
    assert same_bits(entry["c"], array(3))
    survive(writer)
    assert outside.exists()


def test_a_shard_of_zeros_that_are_nowhere_is_not_read_from_elsewhere(tmp_path: Path) -> None:
    """Space in a file that was never written, of which HDF5 would say that it is zeros."""
    writer = make(tmp_path, "hdf5")
    of_type("<f2")(hdf5_shard(path_of(writer)))
    with pytest.raises(CacheError, match="it has no data"):
        assert Entry(writer.folder)["a"].size
    assert verify(writer.folder).damage[0].lost == ("a", "b")


# What lies beside the shards ----------------------------------------------------------------------

LINE = {"id": "a", "content_hash": "x", "reason": "absent", "detail": "there is none"}
QUARANTINES = [
    json.dumps({**LINE, "more": 1}),
    json.dumps({"id": "a"}),
    json.dumps({**LINE, "id": None}),
    json.dumps({**LINE, "id": ["a"]}),
    json.dumps({**LINE, "id": 3}),
    json.dumps({**LINE, "content_hash": 3}),
    json.dumps({**LINE, "reason": {}}),
    json.dumps({**LINE, "detail": [1]}),
    json.dumps([LINE]),
    "3",
    "null",
    "\0",
    "[" * 100_000,
    "\n",
    '{"id": "a"',
]


@pytest.mark.parametrize("text", QUARANTINES, ids=lambda text: text[:40])
def test_a_forged_quarantine_is_refused_and_takes_no_features_away(
    tmp_path: Path, text: str
) -> None:
    writer = make(tmp_path)
    (path_of(writer) / "quarantine.jsonl").write_text(text)
    entry = FeatureCache(tmp_path / "cache").open("made-up", "some/encoder")
    assert "quarantine.jsonl" in refused(lambda: entry.quarantine)
    assert "quarantine.jsonl" in refused(writer.quarantined)
    assert same_bits(entry["c"], array(3))
    survive(writer)


GARBAGE = [b"", b"\xff", b"[]", b"3", b"null", b"[" * 100_000, b'{"started": {}}', b"{", b"\0"]


@pytest.mark.parametrize("garbage", [*GARBAGE, pickle.dumps({"started": 1})], ids=repr)
@pytest.mark.parametrize("folder", ["runs", "leases"])
def test_garbage_in_the_records_of_runs_and_leases_is_in_nobodys_way(
    tmp_path: Path, folder: str, garbage: bytes
) -> None:
    writer = make(tmp_path)
    name = "0.json" if folder == "runs" else "shard-0.0000.json"
    (path_of(writer) / folder / name).write_bytes(garbage)
    entry = FeatureCache(tmp_path / "cache").open("made-up", "some/encoder")
    assert {"made by": "a test"} in entry.provenance
    assert same_bits(entry["c"], array(3))
    assert info(entry).as_json()["runs"]
    with writer.lease("shard-0") as mine:
        assert mine
    survive(writer)


# Names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_an_id_is_never_a_path(tmp_path: Path, outside: Path, store: str) -> None:
    ids = [*ODD_IDS, "../outside/secret", "../../../outside/thesis", str(outside / "secret")]
    root = tmp_path / "cache"
    arrays: dict[str, Array] = {id: array(n) for n, id in enumerate(ids)}
    writer = fill(root, [{id: states} for id, states in arrays.items()], store=store)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "outside"]
    entry = FeatureCache(root).open("made-up")
    assert all(same_bits(entry[id], states) for id, states in arrays.items())
    for path in root.rglob("*"):
        assert not {"secret", "thesis", "passwd"} & set(path.parts), path
    convert(entry, "hdf5", "zstd")
    collect(FeatureCache(root), yes=True, young=0)
    assert verify(writer.folder, repair=True).damage == []
    assert all(same_bits(entry[id], states) for id, states in arrays.items())
