"""Opening finds the matching entry, or lists the entries of the dataset."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

import mser
from mser.cache import AmbiguousEntryError, CacheError, FeatureCache, NotFoundError
from mser.tests.support.cache_entries import DIM, LAYERS, array, fill, spec


def test_a_missing_folder_is_an_empty_cache(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "none")
    assert cache.datasets() == []
    assert cache.entries("made-up") == []
    with pytest.raises(NotFoundError, match="holds no features of made-up: run 'mser extract'"):
        cache.open("made-up")


def test_an_entry_that_was_never_published_is_not_found(tmp_path: Path) -> None:
    fill(tmp_path, [{"a": array(1)}], publish=False)
    with pytest.raises(NotFoundError, match="holds no"):
        FeatureCache(tmp_path).open("made-up")


def test_a_modality_without_features_names_those_that_have_some(tmp_path: Path) -> None:
    fill(tmp_path, [{"a": array(1)}])
    with pytest.raises(NotFoundError, match="no text features of made-up, only speech: choose"):
        FeatureCache(tmp_path).open("made-up", modality="text")


def test_an_empty_entry_opens(tmp_path: Path) -> None:
    fill(tmp_path, [])
    entry = FeatureCache(tmp_path).open("made-up")
    assert (len(entry), list(entry.ids), "a" in entry) == (0, [], False)


def test_an_entry_gives_its_identity(tmp_path: Path) -> None:
    fill(tmp_path, [{"b": array(1), "a": array(2)}])
    entry = FeatureCache(tmp_path).open("made-up", "some/encoder")
    assert entry.spec == spec()
    assert (entry.layers, entry.n_layers, entry.dim) == ((0, 1, 2), LAYERS, DIM)
    assert list(entry.ids) == ["a", "b"]
    assert entry.ids[0] == "a"
    assert entry.ids[-1:] == ["b"]
    assert entry.provenance == [{"made by": "a test"}]
    assert entry.manifest == "0" * 12
    assert entry.quarantine == {}
    assert "c" not in entry
    assert 3 not in entry
    assert isinstance(entry, mser.Entry)


def test_open_by_name_key_and_modality(tmp_path: Path) -> None:
    fill(tmp_path, [{"a": array(1)}])
    fill(tmp_path, [{"a": array(2)}], encoder="other", identity={"weights": "def"})
    fill(tmp_path, [{"a": array(3)}], modality="text", encoder="bert", identity={})
    cache = FeatureCache(tmp_path)
    assert cache.datasets() == ["made-up"]
    assert len(cache.entries("made-up")) == 3
    assert len(cache.entries("made-up", "speech")) == 2
    assert cache.open("made-up", "other")["a"][0, 0, 0] == 2
    assert cache.open("made-up", spec().key)["a"][0, 0, 0] == 1
    assert cache.open("made-up", modality="text")["a"][0, 0, 0] == 3

    with pytest.raises(AmbiguousEntryError) as several:
        cache.open("made-up", modality="speech")
    with pytest.raises(NotFoundError) as none:
        cache.open("made-up", "facebook/hubert", modality="speech")
    for raised in (several, none):
        assert "'other' (key " in str(raised.value)
        assert f"'some/encoder' (key {spec().key})" in str(raised.value)
        assert "'bert'" not in str(raised.value)
    with pytest.raises(NotFoundError, match="text features of made-up by 'other'"):
        cache.open("made-up", "other", modality="text")


def test_open_expects_the_identity_and_shows_the_difference(tmp_path: Path) -> None:
    fill(tmp_path, [{"a": array(1)}])
    cache = FeatureCache(tmp_path)
    assert "a" in cache.open("made-up", expect={"weights": "abc"})
    with pytest.raises(NotFoundError) as raised:
        cache.open("made-up", "some/encoder", expect={"weights": "xyz", "rate": 16000})
    assert "weights is 'abc' and not 'xyz'" in str(raised.value)
    assert "rate" not in str(raised.value)
    with pytest.raises(NotFoundError, match="window is None and not 3"):
        cache.open("made-up", expect={"window": 3})


def test_the_same_name_with_other_weights_is_another_entry(tmp_path: Path) -> None:
    fill(tmp_path, [{"a": array(1)}])
    fill(tmp_path, [{"a": array(2)}], identity={"weights": "new", "rate": 16000})
    cache = FeatureCache(tmp_path)
    with pytest.raises(AmbiguousEntryError, match="choose one by its name or key"):
        cache.open("made-up", "some/encoder")
    entry = cache.open("made-up", "some/encoder", expect={"weights": "new"})
    assert entry["a"][0, 0, 0] == 2


@pytest.mark.parametrize("name", ["../x", "/etc", "..", ".", "", "a/b", "a\\b", ".hidden", "a\n"])
def test_a_dataset_that_is_a_path_is_refused(tmp_path: Path, name: str) -> None:
    cache = FeatureCache(tmp_path / "cache")
    calls: list[Callable[[], object]] = [
        lambda: cache.open(name),
        lambda: cache.entries(name),
        lambda: cache.writer(spec(dataset=name), {}),
        lambda: cache.write_manifest(name, pa.table({"id": ["a"]})),
        lambda: cache.read_manifest(name, "0" * 12),
        lambda: cache.read_manifest("made-up", f"{name}/x"),
    ]
    for call in calls:
        with pytest.raises(CacheError):
            call()
    assert list(tmp_path.iterdir()) == []
