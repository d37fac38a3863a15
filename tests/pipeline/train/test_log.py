"""What the log of a training holds besides the losses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mser.cache import EntrySpec, FeatureCache, UtteranceFeatures
from mser.pipeline.corpora import Corpus
from mser.pipeline.corpora.manifest import to_table
from mser.pipeline.train import train_head
from mser.tests.support.train_runs import CLASSES, log, official, tiny


@pytest.fixture
def repetitive(tmp_path: Path) -> Path:
    """Eight training utterances with four texts, each twice; every speech is different."""
    cache, noise = FeatureCache(tmp_path / "cache"), np.random.default_rng(0)
    utterances = official(8, 4, 4)
    corpus = Corpus("made-up", utterances, CLASSES, "official")
    manifest = to_table(corpus, tmp_path, {utterance.id: "hash" for utterance in utterances}, {})
    for modality, repeats in (("speech", 1), ("text", 2)):
        states = [noise.normal(size=(1, 3, 6)).astype("float32") for _ in utterances]
        features = [
            UtteranceFeatures(utterance.id, "hash", states[n // repeats])
            for n, utterance in enumerate(utterances)
        ]
        writer = cache.writer(EntrySpec("made-up", modality, "small", {}, (0,), 6, "float32"), {})
        writer.write_shard(0, features)
        writer.publish(cache.write_manifest("made-up", manifest))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("head", "options", "train"),
    [
        ("mgcma", [], {"loss", "cross_entropy", "distribution", "instance", "false_negatives"}),
        (
            "mgcma",
            ["head.false_negatives=keep"],
            {"loss", "cross_entropy", "distribution", "instance"},
        ),
        ("query", [], {"loss", "cross_entropy"}),
    ],
)
def test_the_log_counts_the_false_negatives(
    repetitive: Path, tmp_path: Path, head: str, options: list[str], train: set[str]
) -> None:
    run = train_head(tiny(head, repetitive, tmp_path / "run", "epochs=2", *options))
    lines: list[dict[str, Any]] = log(run)
    assert all(set(line["train"]) == train for line in lines)
    if "false_negatives" in train:  # one batch of all eight
        assert [line["train"]["false_negatives"] for line in lines] == [4.0, 4.0]
