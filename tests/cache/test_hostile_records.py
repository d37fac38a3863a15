"""Forged records, indexes and names are errors; no file outside the cache is read or changed."""

import json
import pickle
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mser.cache import (
    CacheError,
    Entry,
    FeatureCache,
    UtteranceFeatures,
    collect_garbage,
    convert,
    info,
    verify,
)
from mser.cache.entry import spec_of
from mser.tests.support.cache_entries import ODD_IDS, Array, array, fill, path_of, same_bits
from mser.tests.support.hostile_caches import (
    forge_index,
    make,
    parquet,
    refused,
    rows,
    survive,
    with_column,
)

pytestmark = [pytest.mark.usefixtures("unpickled"), pytest.mark.exhaustive]

# entry.json ---------------------------------------------------------------------------------------


def forge_record(entry: Path, **changes: object) -> Path:
    """Change a record, and rename the entry's folder to the new key if there is one."""
    file = entry / "entry.json"
    record = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps(record))
    with suppress(Exception):
        entry = entry.rename(entry.with_name(f"forged-{spec_of(record).key}"))
    return entry


# All paths are the test's own, because the tests may run as root.
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
    message = refused(lambda: FeatureCache(tmp_path / "cache").entries("made-up"))
    assert str(entry) in message or field == "modality"
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
def test_a_file_that_is_not_a_record_is_refused(tmp_path: Path, content: bytes) -> None:
    writer = make(tmp_path)
    (path_of(writer) / "entry.json").write_bytes(content)
    assert "entry.json" in refused(lambda: Entry(writer.folder))
    assert "entry.json" in refused(lambda: FeatureCache(tmp_path / "cache").writer(writer.spec, {}))
    survive(writer)


@pytest.mark.parametrize("changes", [{"dim": 10**30}, {"layers": [0, 1]}, {"dtype": "float32"}])
def test_a_record_that_differs_from_the_shards_is_refused_by_a_read(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    writer = make(tmp_path)
    forge_record(path_of(writer), **changes)
    entry = FeatureCache(tmp_path / "cache").open("made-up", "some/encoder")
    assert "form of its arrays differs" in refused(lambda: entry["a"])
    survive(writer)


@pytest.mark.parametrize("name", ABROAD)
def test_a_dataset_or_manifest_outside_the_cache_is_refused(
    tmp_path: Path, outside: Path, name: str
) -> None:
    writer = make(tmp_path)
    forge_record(path_of(writer), dataset=name, manifest=name)
    cache = FeatureCache(tmp_path / "cache")
    refused(lambda: cache.read_manifest(name, "0" * 12))
    refused(lambda: cache.read_manifest("made-up", name))
    refused(lambda: cache.entry_folders(name))
    survive(writer)
    assert outside.exists()


def test_publishing_deletes_nothing_outside_the_cache(tmp_path: Path, outside: Path) -> None:
    """A writer deletes the index that it replaces."""
    for abroad in [*ABROAD, str(outside / "thesis")]:
        writer = make(tmp_path)
        file = path_of(writer) / "entry.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "index": abroad}))
        writer.write_shard(9, [UtteranceFeatures("new", "hash", array(1))])
        refused(lambda: writer.publish("0" * 12))  # noqa: B023
        assert (outside / "thesis" / "thesis.tex").exists()
        shutil.rmtree(tmp_path / "cache")


# The index ----------------------------------------------------------------------------------------


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
    # The shards are undamaged, and the index is rebuilt from them.
    assert same_bits(Entry(writer.folder)["c"], array(3))
    assert outside.exists()


@pytest.mark.parametrize("suffix", ["", ".h5", ".hdf5", ".zarr", ".py"])
def test_an_index_with_the_name_of_a_missing_shard_is_refused(tmp_path: Path, suffix: str) -> None:
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
def test_an_index_with_positions_beyond_a_shard_is_refused_by_a_read(
    tmp_path: Path, store: str, compression: str, column: str, value: int
) -> None:
    writer = make(tmp_path, store, compression)
    forge_index(path_of(writer), with_column(path_of(writer), column, value))
    entry = Entry(writer.folder)
    assert "'a' is beyond its end" in refused(lambda: entry["a"])
    refused(lambda: entry.read(["a", "b"], [0]))
    survive(writer)
    assert same_bits(Entry(writer.folder)["c"], array(3))


def test_an_index_of_a_type_that_would_be_unpickled(tmp_path: Path) -> None:
    """Older versions of Arrow unpickled Python types that a file named."""
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


# The files beside the shards ----------------------------------------------------------------------

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
def test_a_forged_quarantine_is_refused_and_the_features_stay_readable(
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
def test_garbage_in_the_records_of_runs_and_leases_does_no_harm(
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
    collect_garbage(FeatureCache(root), delete=True, minimum_age=0)
    assert verify(writer.folder, repair=True).damage == []
    assert all(same_bits(entry[id], states) for id, states in arrays.items())
