"""Utterances that a run cannot use are excluded, counted and listed; some faults end the run."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mser.cache import CacheError, FeatureCache, Quarantined
from mser.pipeline.corpora.manifest import from_table, to_table
from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.train import train_head
from mser.pipeline.train.examples import find_examples
from mser.tests.support import train_runs
from mser.tests.support.train_runs import BOTH, made, made_cache, official, read_json, rows


def test_excluded_utterances_are_counted_and_listed(tmp_path: Path) -> None:
    corpus = official()
    corpus[0] = replace(corpus[0], label=None)
    missing = {"train/u01", "train/u02", "test/u03"}
    cache = made_cache(
        tmp_path / "cache",
        corpus,
        extracted=[utterance.id for utterance in corpus if utterance.id not in missing],
        quarantined=[Quarantined("train/u02", "hash", "no-audio", "it has no audio stream")],
        hashes={"validation/u01": "another", "test/u05": "another"},
    )
    done = train_head(made(cache, tmp_path / "run"))
    excluded = {
        "train/u00": "it has no label",
        "train/u01": "speech: not extracted yet",
        "train/u02": "speech: no-audio",
        "test/u03": "speech: not extracted yet",
        "validation/u01": "speech: changed since it was extracted",
        "test/u05": "speech: changed since it was extracted",
    }
    folds = read_json(done.path / "folds.json")
    assert folds["excluded"] == excluded
    (fold,) = folds["folds"]
    used = {*fold["train"], *fold["validation"], *fold["test"]}
    assert used == {utterance.id for utterance in corpus} - set(excluded)
    assert read_json(done.path / "metrics.json")["excluded"] == {
        "it has no label": 1,
        "speech: not extracted yet": 2,
        "speech: no-audio": 1,
        "speech: changed since it was extracted": 2,
    }
    assert done.metrics["test_utterances"] == 6
    assert "left out: 2 (speech: not extracted yet)" in str(done)
    assert {row["id"] for row in rows(done)} == set(fold["test"])


def test_a_text_or_a_clip_that_changed_is_excluded(filled_cache: Path, tmp_path: Path) -> None:
    shutil.copytree(filled_cache, tmp_path / "copy")
    cache = FeatureCache(tmp_path / "copy")
    entries = cache.entries("synthetic")
    corpus, hashes = from_table(cache.read_manifest("synthetic", entries[0].manifest))
    corpus.utterances[3] = replace(corpus.utterances[3], text="Something else was said.")
    known = {id: str(sha256) for id, sha256 in hashes.items()}
    known[corpus.utterances[5].id] = "another"
    name = cache.write_manifest("synthetic", to_table(corpus, tmp_path, known, {}))
    for entry in entries:
        cache.writer(entry.spec, {}).publish(name)
    examples = find_examples(tmp_path / "copy", "synthetic", BOTH)
    assert examples.excluded == {
        corpus.utterances[3].id: "text: changed since it was extracted",
        corpus.utterances[5].id: "speech: changed since it was extracted",
    }
    assert len(examples.utterances) == 94


def test_a_corpus_without_usable_utterances_is_refused(tmp_path: Path) -> None:
    corpus = [replace(utterance, label=None) for utterance in official()]
    with pytest.raises(PipelineError, match=r"none of the 40 utterances .* \(it has no label\)"):
        find_examples(made_cache(tmp_path, corpus), "made-up", {"speech": None})


def test_a_part_without_usable_utterances_is_refused(tmp_path: Path) -> None:
    corpus = official()
    extracted = [utterance.id for utterance in corpus if utterance.split != "test"]
    cache = made_cache(tmp_path / "cache", corpus, extracted=extracted)
    with pytest.raises(PipelineError, match="the test part of fold 'official' is empty"):
        train_head(made(cache, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_leak_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    corpus = official()
    corpus[-1] = replace(corpus[-1], dialogue="train/u00")
    cache = made_cache(tmp_path / "cache", corpus)
    with pytest.raises(PipelineError, match="train and test share the dialogue 'train/u00'"):
        train_head(made(cache, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_corpus_of_one_class_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = [replace(utterance, label="sad") for utterance in official()]
    monkeypatch.setattr(train_runs, "CLASSES", ("sad",))
    cache = made_cache(tmp_path / "cache", same)
    with pytest.raises(UsageError, match="made-up has one class alone, 'sad', so nothing can be"):
        train_head(made(cache, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_cache_without_the_features(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="holds no features yet: run 'mser extract' first"):
        train_head(made(tmp_path / "cache", tmp_path / "run"))
    cache = made_cache(tmp_path / "cache", official())
    with pytest.raises(CacheError, match="holds no text features"):
        train_head(made(cache, tmp_path / "run", encoders=BOTH))
    assert not (tmp_path / "run").exists()
