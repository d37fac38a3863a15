"""Pooled features: an entry of its own, complete, up to date, and out of the way."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mser.cache import (
    CacheError,
    Entry,
    FeatureCache,
    UtteranceFeatures,
    collect_garbage,
    listing,
    missing_pooled,
    pooled,
    pooled_entry,
    verify,
)
from mser.tests.support.cache_entries import DIM, LAYERS, array, fill, path_of

GENERATOR = np.random.default_rng(0)
ARRAYS = {
    f"u{number}": GENERATOR.normal(50, 3, size=(LAYERS, frames, DIM)).astype("float16")
    for number, frames in enumerate([1, 2, 700, 30])
}


def entry_of(root: Path, arrays: dict[str, Any] = ARRAYS) -> tuple[FeatureCache, Entry]:
    fill(root, [arrays])
    cache = FeatureCache(root)
    return cache, cache.open("made-up")


def test_each_utterance_has_the_mean_and_the_deviation_of_each_layer(tmp_path: Path) -> None:
    cache, entry = entry_of(tmp_path)
    pooled_features = pooled_entry(cache, entry)
    assert list(pooled_features.ids) == sorted(ARRAYS)
    for id, states in ARRAYS.items():
        exact = states.astype(np.float64)
        expected = np.concatenate([exact.mean(axis=1), exact.std(axis=1)], axis=1)
        stored = pooled_features[id]
        assert stored.shape == (LAYERS, 1, 2 * DIM)
        np.testing.assert_allclose(stored[:, 0], expected, rtol=1e-6)
    assert not verify(pooled_features.folder).damage


def test_nothing_is_pooled_twice(tmp_path: Path) -> None:
    cache, entry = entry_of(tmp_path)
    assert missing_pooled(cache, entry) == len(ARRAYS)
    counts: list[int] = []
    first = pooled_entry(cache, entry, counts.append)
    assert sum(counts) == len(ARRAYS)
    assert missing_pooled(cache, entry) == 0
    before = {path: path.stat().st_mtime_ns for path in path_of(first).rglob("*")}
    pooled_entry(cache, entry, counts.append)
    assert sum(counts) == len(ARRAYS)
    assert {path: path.stat().st_mtime_ns for path in path_of(first).rglob("*")} == before


def test_only_what_is_new_or_has_changed_is_pooled(tmp_path: Path) -> None:
    cache, entry = entry_of(tmp_path)
    pooled_entry(cache, entry)
    writer = cache.existing(entry.spec)
    writer.write_shard(9, [UtteranceFeatures(id, "other", array(7)) for id in ("u1", "new")])
    writer.publish("0" * 12)
    changed = cache.open("made-up")
    counts: list[int] = []
    again = pooled_entry(cache, changed, counts.append)
    assert sum(counts) == 2
    for id in changed.ids:
        expected = np.asarray(changed[id], dtype=np.float64).mean(axis=1)
        np.testing.assert_allclose(again[id][:, 0, :DIM], expected, rtol=1e-6)


def test_an_entry_is_opened_as_if_there_were_no_pooled_features(tmp_path: Path) -> None:
    cache, entry = entry_of(tmp_path)
    pooled_entry(cache, entry)
    assert cache.open("made-up").spec == entry.spec
    assert [other.spec for other in cache.entries("made-up")] == [entry.spec]
    listed = {summary.key: summary.pooled_from for summary in listing(cache).entries}
    assert sorted(listed.values(), key=str) == sorted([None, entry.spec.key], key=str)
    assert f"(pooled from {entry.spec.key})" in str(listing(cache))


def test_pooled_features_are_garbage_once_their_entry_is_gone(tmp_path: Path) -> None:
    cache, entry = entry_of(tmp_path)
    kept = pooled_entry(cache, entry)
    assert collect_garbage(cache, minimum_age=0).garbage == []
    shutil.rmtree(path_of(entry))
    (garbage,) = collect_garbage(cache, minimum_age=0, delete=True).garbage
    assert garbage.what == str(kept.folder)
    assert entry.spec.key in garbage.reason
    assert not path_of(kept).exists()


def test_a_cache_that_cannot_be_written_is_pooled_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, entry = entry_of(tmp_path / "cache")
    writer = FeatureCache.writer

    def refuse(cache: FeatureCache, *arguments: Any) -> Any:
        if str(cache.root).startswith(str(tmp_path / "cache")):
            raise CacheError("cannot write: Permission denied")
        return writer(cache, *arguments)

    monkeypatch.setattr(FeatureCache, "writer", refuse)
    elsewhere = pooled_entry(cache, entry)
    assert not path_of(elsewhere).is_relative_to(tmp_path)
    assert set(elsewhere.ids) == set(ARRAYS)
    assert [path.name for path in (tmp_path / "cache" / "made-up").iterdir()] == [entry.folder.name]
    pooled._private_folder.cache_clear()


def test_a_damaged_shard_is_an_error_and_is_not_pooled(tmp_path: Path) -> None:
    cache, entry = entry_of(tmp_path)
    (shard,) = (path_of(entry) / "shards").iterdir()
    shutil.rmtree(shard)
    with pytest.raises(CacheError, match="is missing"):
        pooled_entry(cache, cache.open("made-up"))
