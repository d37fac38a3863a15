"""The files of a cache are Zarr, Parquet and JSON that other programs can read."""

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zarr

from mser.cache import FeatureCache, Quarantined
from mser.tests.support.cache_entries import DIM, LAYERS, ODD_IDS, array, fill, path_of, same_bits


def test_zarr_alone_reads_an_utterance(tmp_path: Path) -> None:
    fill(tmp_path, [{"a": array(1, 3), "b": array(2, 1), "c": array(3, 4)}])
    entry = FeatureCache(tmp_path).open("made-up")
    (shard,) = (path_of(entry) / "shards").iterdir()

    group: Any = zarr.open_group(shard, mode="r")
    row = group.attrs["ids"].index("c")
    start, length = group.attrs["offsets"][row], group.attrs["lengths"][row]
    states = group["hidden_states"][:, start : start + length]

    assert same_bits(states, entry["c"])
    assert same_bits(states, array(3, 4))


def test_each_layer_has_its_own_chunk(tmp_path: Path) -> None:
    fill(tmp_path, [{"a": array(1, 3), "b": array(2, 1)}])
    (shard,) = tmp_path.glob("made-up/*/shards/*")
    stored: Any = zarr.open_group(shard, mode="r")["hidden_states"]
    assert stored.chunks == (1, 4, DIM)
    assert stored.shards == (LAYERS, 4, DIM)


def test_a_cache_is_json_parquet_and_zarr_and_unpickles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = fill(tmp_path, [{"a": array(1)}])
    writer.quarantine([Quarantined("b", None, "absent", "there is no clip")])
    FeatureCache(tmp_path).write_manifest("made-up", pa.table({"id": ["a"]}))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix or path.name for path in files} == {".json", ".jsonl", ".parquet", "0"}

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("something is unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    entry = FeatureCache(tmp_path).open("made-up")
    assert same_bits(entry["a"], array(1))
    assert entry.quarantine == {"b": Quarantined("b", None, "absent", "there is no clip")}


def test_a_manifest_comes_back(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    rows: list[dict[str, Any]] = [
        {"id": "a\nb", "n": 1, "x": 0.5},
        {"id": "ü", "n": None, "x": None},
    ]
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"mser": '{"classes": ["ü"]}'})
    name = cache.write_manifest("made-up", table)
    stored = cache.read_manifest("made-up", name)
    assert stored.to_pylist() == rows
    assert stored.schema.metadata == table.schema.metadata
    assert cache.write_manifest("made-up", table) == name
    assert cache.write_manifest("made-up", table.slice(1)) != name
    assert cache.write_manifest("made-up", table.replace_schema_metadata({"mser": "{}"})) != name
    assert cache.read_manifest("made-up", name).to_pylist() == rows


def test_quarantine_keeps_odd_text(tmp_path: Path) -> None:
    writer = fill(tmp_path, [{"a": array(1)}])
    bad = [
        Quarantined(f"{id}!", None if n % 2 else "hash", "why", id) for n, id in enumerate(ODD_IDS)
    ]
    writer.quarantine(bad)
    by_id = {utterance.id: utterance for utterance in bad}
    assert FeatureCache(tmp_path).open("made-up").quarantine == by_id
    assert writer.quarantined() == by_id
