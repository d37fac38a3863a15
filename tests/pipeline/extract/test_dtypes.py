"""Extraction as bfloat16 and int8: the features of the encoders, whatever the shards and runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mser.cache import FeatureCache, verify
from mser.pipeline.corpora import load_corpus
from mser.pipeline.extract import runner as runner_module
from mser.tests.conftest import Call
from mser.tests.support.extract_runs import direct, entry, run


@pytest.fixture(scope="module")
def int8_cache(corpus_root, encoders, tmp_path_factory):
    """The texts of the synthetic corpus as int8, all frames. Do not change it."""
    folder = tmp_path_factory.mktemp("int8") / "cache"
    run(corpus_root, folder, {"text": encoders["text"]}, "synthetic", dtype="int8")
    return folder


@pytest.fixture(scope="module")
def texts(corpus_root):
    """The texts of the synthetic corpus, by id."""
    return {u.id: u.text for u in load_corpus("synthetic", corpus_root).utterances}


def test_int8_is_the_forward_pass_within_its_steps(int8_cache, encoders, texts):
    stored = entry(int8_cache, "text", "synthetic")
    assert set(stored.ids) == set(texts)
    step = stored.scale.step[:, None]
    for id, text in list(texts.items())[:20]:
        expected = direct(encoders["text"], text)
        assert stored[id].dtype == np.float32
        near = np.abs(expected - stored.scale.offset[:, None]) < 95 * step
        error = np.abs(stored[id] - expected)
        assert (error <= step / 2 + 1e-5 * np.abs(expected).max())[near].all()
        assert near.mean() > 0.97


def test_int8_has_the_same_bytes_after_an_interruption_and_in_other_shards(
    int8_cache, corpus_root, encoders, tmp_path
):
    text = {"text": encoders["text"]}
    for changes in ({"limit": 7}, {"shard_mib": 0.02}, {}):
        run(corpus_root, tmp_path, text, "synthetic", dtype="int8", store="hdf5", **changes)
    first, second = (entry(folder, "text", "synthetic") for folder in (int8_cache, tmp_path))
    assert first.spec.key == second.spec.key
    assert second.scale.digest == first.scale.digest  # also that of seven utterances
    assert {first.checksum(id) for id in first.ids} == {second.checksum(id) for id in first.ids}
    assert not verify(second.folder).damage


def test_the_dtype_is_part_of_the_identity_and_means_combine(
    corpus_root, encoders, texts, tmp_path
):
    text = {"text": encoders["text"]}
    for dtype in ("bfloat16", "int8"):
        changes = {"dtype": dtype, "stored_frames": "mean"}
        run(corpus_root, tmp_path, text, "synthetic", **changes)
    by_dtype = {e.spec.dtype: e for e in FeatureCache(tmp_path).entries("synthetic", "text")}
    assert set(by_dtype) == {"bfloat16", "int8"}
    assert len({e.spec.key for e in by_dtype.values()}) == 2
    for id in list(texts)[:10]:
        mean = direct(encoders["text"], texts[id]).mean(axis=1, keepdims=True, dtype=np.float64)
        rounded = torch.from_numpy(mean).to(torch.bfloat16).float().numpy()
        np.testing.assert_allclose(by_dtype["bfloat16"][id], rounded, rtol=2**-7, atol=1e-6)
        scale = by_dtype["int8"].scale
        assert scale is not None
        step = scale.step[:, None]
        assert (np.abs(by_dtype["int8"][id] - mean) <= np.maximum(step, 0.06 * abs(mean))).all()


def test_a_calibration_that_cannot_be_used_is_replaced(
    corpus_root, encoders, texts, tmp_path, monkeypatch
):
    monkeypatch.setattr(runner_module, "_calibration", lambda *_: ())
    run(corpus_root, tmp_path, {"text": encoders["text"]}, "synthetic", dtype="int8", limit=5)
    stored = entry(tmp_path, "text", "synthetic")
    assert len(stored) == 5
    expected = direct(encoders["text"], texts[stored.ids[0]])
    assert np.abs(stored[stored.ids[0]] - expected).max() < 0.1 * np.abs(expected).max()


def test_the_halves_of_a_job_that_died_do_not_calibrate_again(
    corpus_root, encoders, tmp_path, monkeypatch
):
    jobs = []

    def keep(work, planned, **_):
        jobs.extend(planned)
        yield from ()

    monkeypatch.setattr(runner_module, "run_shards", keep)
    run(corpus_root, tmp_path, {"text": encoders["text"]}, "synthetic", dtype="int8")
    assert len(jobs[0].calibration) == 64
    assert [half.calibration for half in jobs[0].halves()] == [(), ()]


def test_a_dry_run_shows_the_size_of_each_choice(
    call: Call, corpus_root, encoders, texts, tmp_path
):
    options = (
        *("extract", "--dataset", "synthetic", "--root", corpus_root, "--cache", tmp_path),
        *("--modalities", "text", "--text-encoder", encoders["text"], "--dry-run"),
        *("--frames", "3", "--workers", "0"),
    )
    code, out, _ = call(*options)
    assert code == 0
    frames = [direct(encoders["text"], text).shape for text in texts.values()]
    layers, _, dim = frames[0]
    counts = {
        "all": sum(shape[1] for shape in frames),
        "3": sum(-(-shape[1] // 3) for shape in frames),
        "mean": len(frames),
    }
    code, listed, _ = call(*options, "--json")
    sizes = json.loads(listed)["modalities"][0]["sizes"]
    expected = [
        {"frames": name, "dtype": dtype, "bytes": count * layers * dim * width}
        for name, count in counts.items()
        for dtype, width in (("float16", 2), ("float32", 4), ("bfloat16", 2), ("int8", 1))
    ]
    assert sizes == expected
    rows = {line.split()[1]: line.split()[2:] for line in out.splitlines() if "  --frames" in line}
    assert rows == {
        name: [f"{count * layers * dim * width / 1e6:.1f}" for width in (2, 4, 2, 1)]
        for name, count in counts.items()
    }


def test_int8_is_trained_on_exported_and_imported(call: Call, int8_cache, tmp_path):
    code, _, err = call(
        *("train-head", "--head", "linear", "--dataset", "synthetic", "--modalities", "text"),
        *("--cache", int8_cache, "--set", "l2=0.1", "--out", tmp_path / "run"),
    )
    assert code == 0, err
    code, _, err = call(
        *("cache", "export", "--dataset", "synthetic", "--cache", int8_cache),
        *("--modality", "text", "--to", tmp_path / "out", "--format", "npy"),
    )
    assert code == 0, err
    stored = entry(int8_cache, "text", "synthetic")
    for id in list(stored.ids)[:5]:
        exported = np.load(tmp_path / "out" / f"{id.replace('/', '%2F')}.npy")
        np.testing.assert_array_equal(exported, stored[id])
    manifest = tmp_path / "ids.csv"
    manifest.write_text("id,label\n" + "".join(f"{id},a\n" for id in stored.ids))
    options = (
        *("cache", "import", tmp_path / "out", "--dataset", "again", "--encoder", "e"),
        *("--modality", "text", "--manifest", manifest, "--cache", tmp_path, "--dtype", "int8"),
    )
    assert call(*options)[0] == 0
    again = entry(tmp_path, "text", "again")
    step = again.scale.step[:, None]
    for id in stored.ids:
        assert (np.abs(again[id] - stored[id]) <= np.maximum(step, 0.05 * abs(stored[id]))).all()
    _, out, _ = call(*options)
    assert "nothing new" in out or "0 new" in out or " 0 " in out
    before = again.published
    assert entry(tmp_path, "text", "again").published == before


@pytest.mark.parametrize("dtype", ["int4", "float64", ""])
def test_an_unknown_dtype_lists_the_known(call: Call, corpus_root, tmp_path: Path, dtype):
    code, _, err = call(
        *("extract", "--dataset", "synthetic", "--root", corpus_root, "--cache", tmp_path),
        *("--dtype", dtype),
    )
    assert code == 2
    assert "known: bfloat16, float16, float32, int8" in err
