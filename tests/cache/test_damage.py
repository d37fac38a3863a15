"""Damage is an error that names the file in one sentence; other entries stay readable."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mser.cache import CacheError, DamagedError, FeatureCache, NotFoundError
from mser.tests.support.cache_entries import DIM, LAYERS, array, fill, path_of, spec

# Shards -------------------------------------------------------------------------------------------


def data_file(entry: Path, shard: str = "*") -> Path:
    """The file of a shard that holds the numbers."""
    (file,) = entry.glob(f"shards/{shard}/hidden_states/c/0/0/0")
    return file


def truncate_data(entry: Path) -> None:
    data_file(entry).write_bytes(data_file(entry).read_bytes()[:-3])


def empty_data(entry: Path) -> None:
    data_file(entry).write_bytes(b"")


def delete_data(entry: Path) -> None:
    data_file(entry).unlink()


def delete_shard(entry: Path) -> None:
    shutil.rmtree(data_file(entry).parents[4])


def overwrite_metadata(entry: Path) -> None:
    (file,) = entry.glob("shards/*/hidden_states/zarr.json")
    file.write_bytes(b"\0\0\0")


def incomplete_metadata(entry: Path) -> None:
    (file,) = entry.glob("shards/*/hidden_states/zarr.json")
    file.write_text('{"zarr_format": 3, "node_type": "array"}')


def replace_shard_by(entry: Path, frames: int, **changes: Any) -> None:
    """Replace the entry's shard by one of another entry."""
    other = entry.parents[1] / "other"
    layers, dim = len(changes.get("layers", range(LAYERS))), changes.get("dim", DIM)
    writer = fill(other, [{"a": array(1, frames, layers, dim)}], **changes)
    (theirs,), (ours,) = path_of(writer).glob("shards/*"), entry.glob("shards/*")
    shutil.rmtree(ours)
    theirs.rename(ours)


def wider_shard(entry: Path) -> None:
    replace_shard_by(entry, 3, dim=DIM + 1)


def deeper_shard(entry: Path) -> None:
    replace_shard_by(entry, 3, layers=tuple(range(LAYERS + 1)))


def shorter_shard(entry: Path) -> None:
    replace_shard_by(entry, 1)


def shard_of_another_dtype(entry: Path) -> None:
    replace_shard_by(entry, 3, dtype="float32")


@pytest.mark.parametrize(
    "damage",
    [
        truncate_data,
        empty_data,
        delete_data,
        delete_shard,
        overwrite_metadata,
        incomplete_metadata,
        wider_shard,
        deeper_shard,
        shorter_shard,
        shard_of_another_dtype,
    ],
)
def test_a_damaged_shard_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    writer = fill(tmp_path / "cache", [{"a": array(1, 3)}])
    (shard,) = (path_of(writer) / "shards").iterdir()
    damage(path_of(writer))
    entry = FeatureCache(tmp_path / "cache").open("made-up")
    with pytest.raises(DamagedError) as raised:
        entry["a"]
    assert not isinstance(raised.value, FileNotFoundError)
    assert shard.name in str(raised.value)
    assert "\n" not in str(raised.value)


# Records ------------------------------------------------------------------------------------------


def edit_index(entry: Path) -> str:
    (file,) = entry.glob("index-*.parquet")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return file.name


def delete_index(entry: Path) -> str:
    (file,) = entry.glob("index-*.parquet")
    file.unlink()
    return file.name


def edit_record(entry: Path, **changes: Any) -> str:
    file = entry / "entry.json"
    record = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({k: v for k, v in record.items() if v is not None}))
    return "entry.json"


def other_weights(entry: Path) -> str:
    edit_record(entry, identity={"weights": "others", "rate": 16000})
    return entry.name


def other_width(entry: Path) -> str:
    edit_record(entry, dim=DIM + 1)
    return entry.name


def future_format(entry: Path) -> str:
    return edit_record(entry, format=99)


def no_format(entry: Path) -> str:
    return edit_record(entry, format=None)


def no_index_named(entry: Path) -> str:
    return edit_record(entry, index=None)


def half_record(entry: Path) -> str:
    file = entry / "entry.json"
    file.write_bytes(file.read_bytes()[:100])
    return file.name


def list_for_record(entry: Path) -> str:
    (entry / "entry.json").write_text("[]")
    return "entry.json"


def half_quarantine(entry: Path) -> str:
    (entry / "quarantine.jsonl").write_text('{"id": "a", "rea')
    return "quarantine.jsonl"


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (edit_index, DamagedError),
        (delete_index, DamagedError),
        (other_weights, CacheError),
        (other_width, CacheError),
        (future_format, CacheError),
        (no_format, DamagedError),
        (no_index_named, DamagedError),
        (half_record, DamagedError),
        (list_for_record, DamagedError),
        (half_quarantine, DamagedError),
    ],
)
def test_a_damaged_entry_is_named(
    tmp_path: Path, damage: Callable[[Path], str], error: type[CacheError]
) -> None:
    path = path_of(fill(tmp_path, [{"a": array(1)}]))
    named = damage(path)
    with pytest.raises(CacheError) as raised:
        assert FeatureCache(tmp_path).open("made-up").quarantine == {}
    assert type(raised.value) is error
    assert named in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("damage", [edit_index, other_weights, future_format, half_record])
def test_a_damaged_entry_leaves_the_others_readable(
    tmp_path: Path, damage: Callable[[Path], str]
) -> None:
    path = path_of(fill(tmp_path, [{"a": array(1)}]))
    fill(tmp_path, [{"a": array(2)}], encoder="whole", identity={})
    damage(path)
    cache = FeatureCache(tmp_path)
    assert cache.open("made-up", "whole")["a"][0, 0, 0] == 2
    with pytest.raises(CacheError, match=path.name):
        assert [len(entry) for entry in cache.entries("made-up")]


def test_the_error_of_a_future_format_tells_what_to_do(tmp_path: Path) -> None:
    future_format(path_of(fill(tmp_path, [{"a": array(1)}])))
    with pytest.raises(CacheError, match="format 99, and this mser reads format 1: install"):
        FeatureCache(tmp_path).open("made-up")


def test_a_writer_does_not_mix_into_an_entry_of_other_weights(tmp_path: Path) -> None:
    other_weights(path_of(fill(tmp_path, [{"a": array(1)}])))
    with pytest.raises(CacheError, match="filled by another encoder"):
        FeatureCache(tmp_path).writer(spec(), {})


def test_a_manifest_that_is_lost_or_damaged(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    name = cache.write_manifest("made-up", pa.table({"id": ["a"]}))
    (tmp_path / "made-up" / f"corpus-{name}.parquet").write_bytes(b"no")
    with pytest.raises(DamagedError, match=f"corpus-{name}.parquet is damaged"):
        cache.read_manifest("made-up", name)
    with pytest.raises(NotFoundError, match=f"there is no .*/corpus-{'0' * 12}.parquet"):
        cache.read_manifest("made-up", "0" * 12)
