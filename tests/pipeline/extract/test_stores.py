"""The same extraction into Zarr and HDF5, on this machine and on an object store."""

import json
from pathlib import Path

import pytest

from mser.cache import FeatureCache, verify
from mser.pipeline.train import TrainSettings, train_head
from mser.tests.conftest import Mser
from mser.tests.support.extract_runs import run
from mser.tests.support.object_store import ObjectStore

FEW = 8  # utterances that are extracted again for each form


@pytest.fixture
def root(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty cache; the environment gives the server."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.options["endpoint_url"])
    return store.root


def digests(cache: FeatureCache) -> dict[tuple[str, str], str]:
    return {
        (entry.spec.modality, id): entry.checksum(id)
        for entry in cache.entries("synthetic")
        for id in entry.ids
    }


def test_every_store_and_location_gives_equal_digests(
    root: str, tmp_path: Path, corpus_root: Path, encoders: dict[str, str], filled_cache: Path
) -> None:
    expected = digests(FeatureCache(filled_cache)).items()
    assert len(set(expected)) == 2 * 96
    for folder in (str(tmp_path), root):
        for form in (("hdf5", "none"), ("zarr", "none"), ("zarr", "zstd")):
            url = f"{folder}/{'-'.join(form)}"
            kept = {"store": form[0], "compression": form[1], "shard_mib": 0.1, "limit": FEW}
            summary = run(corpus_root, url, encoders, "synthetic", **kept)
            cache = FeatureCache(url)
            assert [modality.new for modality in summary.modalities] == [FEW, FEW]
            stored = digests(cache)
            assert len(set(stored.values())) > FEW
            assert len(stored) == 2 * FEW
            assert stored.items() <= expected
            for entry in cache.entries("synthetic"):
                assert not verify(entry.folder).damage
            again = run(corpus_root, url, encoders, "synthetic", **kept)
            assert [modality.new for modality in again.modalities] == [0, 0]


@pytest.mark.usefixtures("quick_workers")
def test_workers_extract_to_an_object_store_and_a_head_trains_from_it(
    root: str,
    tmp_path: Path,
    corpus_root: Path,
    encoders: dict[str, str],
    mser: Mser,
) -> None:
    text, local = {"text": encoders["text"]}, str(tmp_path / "local")
    run(corpus_root, root, text, "synthetic", workers=2, limit=4 * FEW)
    run(corpus_root, local, text, "synthetic", limit=4 * FEW)
    listed = mser("cache", "ls", "--cache", root, "--json")
    assert listed.returncode == 0, listed.stderr
    assert [entry["utterances"] for entry in json.loads(listed.stdout)["entries"]] == [4 * FEW]

    def scores(cache: str) -> object:
        settings = TrainSettings(
            "linear",
            "synthetic",
            cache,
            {"text": None},
            layer="last",
            protocol="group-folds:dialogue:2",
            out=tmp_path / "runs" / Path(cache).name,
        )
        return train_head(settings.with_overrides(["l2=0.1"])).metrics["aggregate"]

    assert scores(root) == scores(local)
