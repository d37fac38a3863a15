"""The cache in Python: corpora as columns, labels, pooled vectors, encoders by folder."""

import csv
import pickle
from pathlib import Path

import numpy as np
import pytest

import mser
from mser.cache import CacheError
from mser.pipeline.encoders.random_encoders import save_speech_encoder
from mser.pipeline.errors import UsageError
from mser.tests.support.train_runs import made_both, made_cache, make_utterance, official


def rows(corpus_root: Path) -> list[dict[str, str]]:
    with (corpus_root / "utterances.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_corpus_has_its_columns(filled_cache: Path, corpus_root: Path) -> None:
    corpus = mser.FeatureCache(filled_cache).corpus("synthetic")
    expected = rows(corpus_root)
    assert corpus.id == [row["id"] for row in expected]
    assert corpus.label == [row["label"] for row in expected]
    assert corpus.text == [row["text"] for row in expected]
    assert len(corpus) == 96
    assert all(seconds > 0 for seconds in corpus.duration)
    one = corpus.where(session="ses02", label="sad")
    wanted = [row["id"] for row in expected if row["session"] == "ses02" and row["label"] == "sad"]
    assert one.id == wanted
    assert corpus.where(ids=set(wanted[:2])).id == wanted[:2]
    assert [row["id"] for row in one] == wanted
    assert one.to_arrow()["speaker"].to_pylist() == one.speaker
    assert repr(corpus).startswith("<corpus synthetic: 96 utterances, classes angry, happy,")
    with pytest.raises(UsageError, match="unknown column of synthetic 'sesion': did you mean"):
        corpus.where(sesion="ses02")
    with pytest.raises(AttributeError, match="no column 'emotion'"):
        _ = corpus.emotion
    assert pickle.loads(pickle.dumps(corpus)) == corpus
    frame = pytest.importorskip("pandas")
    assert isinstance(corpus.to_pandas(), frame.DataFrame)


def test_class_sets_are_those_of_the_training(tmp_path: Path) -> None:
    sets = {"2": {"angry": "negative", "sad": "negative", "happy": "positive"}}
    made_both(tmp_path, official(), class_sets=sets)
    cache = mser.FeatureCache(tmp_path)
    labels = {"angry": "negative", "sad": "negative", "happy": "positive", "neutral": None}
    merged = cache.corpus("made-up", classes="2")
    assert merged.label == [labels[str(u.label)] for u in official()]
    entry = cache.open("made-up", modality="speech")
    x, y = entry.pooled(with_labels=True, classes="2")
    assert set(y) == {"negative", "positive"}
    assert len(x) == len([label for label in merged.label if label])


def test_pooled_vectors_are_means_of_frames_in_the_order_of_the_ids(filled_cache: Path) -> None:
    entry = mser.FeatureCache(filled_cache).open("synthetic", modality="speech")
    ids = [entry.ids[7], entry.ids[2]]
    exact = np.stack([entry[id].astype(np.float64) for id in ids[:1]])[0]
    vectors = entry.pooled(layer=1, ids=ids)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[0], exact[1].mean(axis=0), rtol=1e-5, atol=1e-6)
    both = entry.pooled([2, 0], ids=ids, pooling="mean_std")
    expected = [exact[layer].mean(axis=0) for layer in (2, 0)]
    deviations = [exact[layer].std(axis=0) for layer in (2, 0)]
    order = [expected[0], deviations[0], expected[1], deviations[1]]
    np.testing.assert_allclose(both[0], np.concatenate(order), rtol=1e-5, atol=1e-5)
    assert entry.pooled().shape == (96, entry.n_layers * entry.dim)
    x, y = entry.pooled(layer=1, with_labels=True)
    assert list(y) == [entry.labels[id] for id in entry.ids]
    np.testing.assert_array_equal(x[7], vectors[0])


def test_utterances_without_a_label_are_left_out(tmp_path: Path) -> None:
    unlabelled = make_utterance("train/none", split="train", label=None)
    made_cache(tmp_path, [*official(), unlabelled])
    entry = mser.FeatureCache(tmp_path).open("made-up")
    assert entry.labels["train/none"] is None
    x, y = entry.pooled(layer=1, with_labels=True)
    assert (len(x), len(y)) == (40, 40)
    assert len(entry.pooled(layer=1)) == 41
    with pytest.raises(UsageError, match="'train/none' has no label: leave it out of ids"):
        entry.pooled(layer=1, ids=["train/none"], with_labels=True)
    with pytest.raises(CacheError, match="does not hold the utterance 'nobody'"):
        entry.pooled(layer=1, ids=["nobody"])
    with pytest.raises(CacheError, match="layer 7 is not in"):
        entry.pooled(layer=7)
    with pytest.raises(UsageError, match="pooling 'max': give mean or mean_std"):
        entry.pooled(layer=1, pooling="max")


def test_an_entry_is_opened_by_name_folder_and_key(
    filled_cache: Path, encoders: dict[str, str], tmp_path: Path
) -> None:
    cache = mser.FeatureCache(filled_cache)
    by_name = cache.open("synthetic", encoder="small-wav2vec2")
    keys = {
        cache.open("synthetic", encoder=encoder).spec.key
        for encoder in (encoders["speech"], Path(encoders["speech"]), by_name.spec.key)
    }
    assert keys == {by_name.spec.key}
    save_speech_encoder(tmp_path / "small-wav2vec2", seed=1)  # the same name, other weights
    with pytest.raises(CacheError, match="were made by another 'small-wav2vec2'"):
        cache.open("synthetic", encoder=tmp_path / "small-wav2vec2")


def test_a_folder_in_the_current_directory_does_not_hide_a_feature_extractor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_cache(tmp_path / "cache", official(), encoder="log-mel")
    (tmp_path / "log-mel").mkdir()
    monkeypatch.chdir(tmp_path)
    cache = mser.FeatureCache("cache")
    assert cache.open("made-up", "log-mel").spec.encoder == "log-mel"
    with pytest.raises(UsageError, match=r"'\./log-mel' is not an encoder"):
        cache.open("made-up", "./log-mel")


def test_a_folder_that_holds_no_encoder_does_not_hide_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_cache(tmp_path / "cache", official(), encoder="hubert")
    monkeypatch.chdir(tmp_path)
    for name in ("hubert", "wavlm"):
        (tmp_path / name).mkdir()
    assert mser.FeatureCache("cache").open("made-up", "hubert").spec.encoder == "hubert"
    for other in ("./hubert", "wavlm"):
        with pytest.raises(UsageError, match=f"'{other}' is not an encoder: the folder has no"):
            mser.FeatureCache("cache").open("made-up", other)


def test_everything_says_what_it_is(filled_cache: Path, encoders: dict[str, str]) -> None:
    cache = mser.FeatureCache(filled_cache)
    assert repr(cache) == f"<cache {filled_cache}: synthetic>"
    entry = cache.open("synthetic", modality="text")
    assert repr(entry) == (
        f"<text features of synthetic by small-bert (key {entry.spec.key}): 96 utterances, layers "
        f"{','.join(map(str, entry.layers))}, {entry.dim} wide, float16>"
    )
    encoder = mser.load_encoder(encoders["speech"], layers="last", device="cpu")
    assert repr(encoder).startswith("<speech encoder small-wav2vec2: layers ")
    copy = pickle.loads(pickle.dumps(entry))
    assert copy.labels == entry.labels


def test_an_absent_corpus_is_one_sentence(filled_cache: Path) -> None:
    with pytest.raises(CacheError, match="does not hold the corpus 'meld', only synthetic"):
        mser.FeatureCache(filled_cache).corpus("meld")
