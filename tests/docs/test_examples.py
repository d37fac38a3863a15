"""The examples in the docs run as they stand."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from sklearn.metrics import recall_score

from mser import FeatureCache
from mser.cache import FORMATS, convert, verify
from mser.heads import HEADS
from mser.pipeline.corpora import CORPORA, synthetic
from mser.pipeline.encoders import FAMILIES
from mser.pipeline.evaluation.metrics import scores
from mser.pipeline.evaluation.registry import METRICS, Metric
from mser.pipeline.extract import ExtractSettings, extract, load_encoder
from mser.pipeline.train import TrainSettings, train_head
from mser.tests.support.cache_entries import fill, path_of, same_bits

DOCS = Path(__file__).parents[2] / "docs"


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def run(code: str, **names: Any) -> dict[str, Any]:
    exec(compile(code, "docs", "exec"), names)
    return names


def test_zarr_alone_and_h5py_alone_read_an_utterance(filled_cache: Path, tmp_path: Path) -> None:
    shutil.copytree(filled_cache, tmp_path / "cache")
    cache = FeatureCache(tmp_path / "cache")
    _, zarr_alone, h5py_alone = examples("cache.md")
    for store, code in (("zarr", zarr_alone), ("hdf5", h5py_alone)):
        convert(cache.open("synthetic", modality="speech"), store, "none")
        entry = cache.open("synthetic", modality="speech")
        for shard in entry.index.shards():
            for id in entry.index.rows_in([shard])["id"].to_pylist():
                path = path_of(entry) / "shards" / shard
                read = run(code, shard=path, utterance_id=id)["last_layer"]
                np.testing.assert_array_equal(read, entry[id][-1])


def test_numpy_decodes_bfloat16_and_int8(tmp_path: Path) -> None:
    codes_of = dict(zip(("bfloat16", "int8"), examples("smaller-caches.md"), strict=True))
    states = np.random.default_rng(0).standard_normal((3, 40, 4), "f4")
    states[1, 3] = 30  # beyond the even steps
    for dtype, code in codes_of.items():
        fill(tmp_path / dtype, [{"a": states}], dtype=dtype)
        entry = FeatureCache(tmp_path / dtype).open("made-up")
        (shard,) = (path_of(entry) / "shards").iterdir()
        group: Any = zarr.open_group(shard, mode="r")
        codes = group["hidden_states"][:]
        read = run(code, codes=codes, entry=path_of(entry))["states"]
        np.testing.assert_allclose(read, entry["a"], rtol=1e-5, atol=1e-6)


def test_a_data_loader_as_the_docs_make_it(filled_cache: Path) -> None:
    code = examples("cache.md")[0].replace('"meld"', '"synthetic"')
    names = run(code, cache=filled_cache)
    entry = names["entry"]
    for id, padded, length in zip(names["ids"], names["states"], names["lengths"], strict=True):
        np.testing.assert_array_equal(padded[:, :length], entry[id][-1:])
        assert not padded[:, length:].any()


def test_a_store_format_as_the_docs_add_it(
    tmp_path: Path, filled_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "npy", run(examples("extending.md")[3])["NpyFormat"]())
    shutil.copytree(filled_cache, tmp_path / "cache")
    before = FeatureCache(filled_cache).open("synthetic", modality="text")
    convert(FeatureCache(tmp_path / "cache").open("synthetic", modality="text"), "npy", "none")
    after = FeatureCache(tmp_path / "cache").open("synthetic", modality="text")
    assert {Path(shard).suffix for shard in after.index.shards()} == {".npy"}
    for id in before.ids:
        assert same_bits(after[id], before[id])
    assert not verify(after.folder).damage


def test_a_corpus_and_a_head_as_the_docs_add_them(
    tmp_path: Path, corpus_root: Path, encoders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, head, *_ = examples("extending.md")
    root = tmp_path / "mine"
    root.mkdir()
    for number, one in enumerate(synthetic.load(corpus_root).utterances[:48]):
        assert one.audio is not None
        emotion = "cross" if one.label == "angry" else "calm"
        name = f"speaker{number % 3}_{emotion}_{number}"
        shutil.copy(one.audio, root / f"{name}.wav")
        (root / f"{name}.txt").write_text(str(one.text))
    monkeypatch.setitem(CORPORA, "mine", run(corpus)["load"])
    monkeypatch.setitem(HEADS, "late-fusion", run(head, __name__="docs")["LateFusion"])
    extract(ExtractSettings("mine", root, tmp_path / "cache", encoders, workers=0))
    settings = TrainSettings(
        "late-fusion",
        "mine",
        tmp_path / "cache",
        {"speech": None, "text": None},
        out=tmp_path / "run",
    )
    trained = train_head(settings.with_overrides(["epochs=2", "head.dropout=0.1"]))
    assert [fold["fold"] for fold in trained.metrics["folds"]] == [
        "speaker0",
        "speaker1",
        "speaker2",
    ]
    with pytest.raises(Exception, match="give the folder with the"):
        CORPORA["mine"](tmp_path)


def test_a_metric_as_the_docs_add_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lowest_recall = run(examples("extending.md")[2])["lowest_recall"]
    monkeypatch.setitem(METRICS, "lowest_recall", Metric("lowest recall", lowest_recall))
    labels, predicted = list("aaabbc"), list("aabbda")
    expected = recall_score(labels, predicted, labels=list("abc"), average=None)
    assert scores(labels, predicted)["lowest_recall"] == min(expected) == 0
    assert scores(labels[:5], predicted[:5])["lowest_recall"] == min(expected[:2])


def test_a_feature_extractor_as_the_docs_add_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "mine.py").write_text(examples("extending.md")[4])
    wave = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    (states,) = load_encoder(f"{tmp_path / 'mine.py'}:LogPower(bands=20)").encode([wave])
    spectrum = np.abs(np.fft.rfft(wave[320:640])[:160]) ** 2
    assert states.shape == (1, 3, 20)
    np.testing.assert_allclose(states[0, 1, 7], np.log(spectrum[56:64].mean() + 1e-6), rtol=1e-4)


def test_an_encoder_family_as_the_docs_add_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import (  # noqa: PLC0415
        Wav2Vec2ConformerConfig,
        Wav2Vec2ConformerModel,
        Wav2Vec2FeatureExtractor,
    )

    monkeypatch.setattr("mser.pipeline.encoders.FAMILIES", dict(FAMILIES))
    config = Wav2Vec2ConformerConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(32,) * 7,
        num_conv_pos_embedding_groups=4,
    )
    Wav2Vec2ConformerModel(config).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    run(examples("extending.md")[-1])
    wave = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    encoder = load_encoder(str(tmp_path))
    assert not encoder.exact_when_padded
    (states,) = encoder.encode([wave])
    assert states.shape == (3, 24, 32)
