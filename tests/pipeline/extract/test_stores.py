"""The same extraction into Zarr and HDF5, on this machine and on an object store."""

import json
from pathlib import Path

import pytest

from mser.cache import FeatureCache, verify
from mser.pipeline.train import TrainSettings, train_head
from mser.tests.conftest import Mser
from mser.tests.support.extract_runs import run
from mser.tests.support.object_store import ObjectStore


@pytest.fixture
def root(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty cache, which the environment leads to."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.options["endpoint_url"])
    return store.root


def digests(cache: FeatureCache) -> dict[tuple[str, str], str]:
    return {
        (entry.spec.modality, id): entry.checksum(id)
        for entry in cache.entries("synthetic")
        for id in entry.ids
    }


def test_any_store_in_any_place_gives_equal_digests(
    root: str, tmp_path: Path, corpus_root: Path, encoders: dict[str, str], filled_cache: Path
) -> None:
    expected = digests(FeatureCache(filled_cache))
    assert len(expected) == 2 * 96
    assert len(set(expected.values())) > 96
    for place in (str(tmp_path), root):
        for form in (("hdf5", "none"), ("zarr", "none"), ("zarr", "zstd")):
            cache = FeatureCache(f"{place}/{'-'.join(form)}")
            where = f"{place}/{'-'.join(form)}"
            kept = {"store": form[0], "compression": form[1], "shard_mib": 0.5}
            summary = run(corpus_root, where, encoders, "synthetic", **kept)
            assert [one.new for one in summary.modalities] == [96, 96]
            assert digests(cache) == expected
            for entry in cache.entries("synthetic"):
                assert not verify(entry.folder).damage
            again = run(corpus_root, where, encoders, "synthetic", **kept)
            assert [one.new for one in again.modalities] == [0, 0]


def test_workers_extract_to_an_object_store_and_a_head_trains_from_it(
    root: str,
    tmp_path: Path,
    corpus_root: Path,
    encoders: dict[str, str],
    filled_cache: Path,
    mser: Mser,
) -> None:
    text = {"text": encoders["text"]}
    run(corpus_root, root, text, "synthetic", workers=2)
    listed = mser("cache", "ls", "--cache", root, "--json")
    assert listed.returncode == 0, listed.stderr
    assert [one["utterances"] for one in json.loads(listed.stdout)["entries"]] == [96]

    def scores(cache: str) -> object:
        settings = TrainSettings(
            "linear",
            "synthetic",
            cache,
            {"text": None},
            layer="last",
            out=tmp_path / Path(cache).name,
        )
        return train_head(settings.with_overrides(["epochs=1"])).metrics["aggregate"]

    assert scores(root) == scores(str(filled_cache))
