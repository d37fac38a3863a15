"""Turns without a label of the classes: read in their dialogue, in no loss and in no score."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mser.cache import FeatureCache
from mser.heads import Dialogues
from mser.pipeline.corpora import Utterance
from mser.pipeline.protocols.folds import Fold
from mser.pipeline.runs import evaluate
from mser.pipeline.train import Run, TrainSettings, train_head
from mser.pipeline.train.batches import BatchSampler
from mser.pipeline.train.context import context_turns
from mser.pipeline.train.examples import find_examples
from mser.pipeline.train.features import FeatureLoader
from mser.pipeline.train.jobs import build, examples_of, trainer_of
from mser.pipeline.train.runner import train_heads
from mser.tests.support.talks import talks
from mser.tests.support.train_runs import (
    BOTH,
    CLASSES,
    log,
    made_both,
    make_utterance,
    read_json,
    results,
    rows,
    tiny,
)

WITHOUT = {"speech": ["train/d2u1"]}


UNLABELLED = {u.id for u in talks() if u.label is None}
CONTEXT = {id for id in UNLABELLED if "/d" in id} - {"train/d2u1"}  # of which features are missing


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of both modalities. Do not change them."""
    return made_both(tmp_path_factory.mktemp("context") / "cache", talks(), without=WITHOUT)


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of hbaf. Do not change it."""
    return train_head(tiny("hbaf", cache, tmp_path_factory.mktemp("run") / "run"))


def test_the_turns_without_a_label_are_context(cache: Path) -> None:
    examples = find_examples(cache, "made-up", BOTH, context=True)
    silent = {"test/silent0", "test/silent1"}
    assert {turn.id for turn in examples.context} == CONTEXT | silent
    assert set(examples.excluded) == UNLABELLED
    assert set(examples.excluded.values()) == {"it has no label"}
    without = find_examples(cache, "made-up", BOTH)
    assert without.context == ()
    assert without.excluded == examples.excluded
    assert without.utterances == examples.utterances
    assert without.digest != examples.digest


@pytest.mark.parametrize("changed", ["train/d0u1", "train/d0u0"])
def test_other_features_of_a_turn_are_other_examples(cache: Path, changed: str) -> None:
    examples = find_examples(cache, "made-up", BOTH, context=True)
    text = examples.entries["text"]

    def digest(changes: str) -> str:
        def checksum(id: str) -> str:
            return "other" if id == changes else text.checksum(id)

        entry: Any = SimpleNamespace(spec=text.spec, checksum=checksum)
        return replace(examples, entries={**examples.entries, "text": entry}).digest

    assert digest(changed) != examples.digest
    assert digest("none") == examples.digest


def test_heads_with_and_without_dialogues_can_be_trained_together(
    cache: Path, run: Run, tmp_path: Path
) -> None:
    several = [tiny(head, cache, tmp_path / head) for head in ("linear", "hbaf")]
    linear, hbaf = train_heads(several)
    assert "context_turns" not in linear.metrics
    assert hbaf.metrics == run.metrics


def test_labels_that_are_not_in_the_classes_are_context(tmp_path: Path) -> None:
    corpus = [u for u in talks() if u.label is not None]
    kept = {name: name for name in CLASSES if name != "sad"}
    cache = made_both(tmp_path / "cache", corpus, class_sets={"3": kept})
    examples = find_examples(cache, "made-up", BOTH, "3", context=True)
    sad = {u.id for u in corpus if u.label == "sad"}
    assert {turn.id for turn in examples.context} == set(examples.excluded) == sad
    assert all(turn.label is None for turn in examples.context)
    assert set(examples.excluded.values()) == {"its label 'sad' is not in any of the classes"}


@pytest.mark.parametrize("keep", ["memory", "stream"])
def test_a_batch_holds_the_context_at_its_place(cache: Path, keep: str) -> None:
    examples = find_examples(cache, "made-up", BOTH, context=True)
    features = FeatureLoader(examples, {"speech": (0,), "text": (1,)}, torch.device("cpu"), keep)
    of_dialogue = [u for u in examples.utterances if u.dialogue == "train/d3"]
    turns = [u for u in examples.context if u.dialogue == "train/d3"]
    plan = BatchSampler(of_dialogue, 32, examples.length, True, turns)
    (order,) = plan.order()
    assert [u.id for u in order] == [f"train/d3u{n}" for n in range(6)]
    (batch,) = features.batches(plan, [order])
    assert batch.dialogues is not None
    assert batch.dialogues.context is not None
    assert batch.dialogues.speaker is not None
    assert batch.dialogues.context.tolist() == [False, True, False, False, True, False]
    speakers = batch.dialogues.speaker.tolist()
    assert speakers == [speakers[0], speakers[1]] * 3
    assert speakers[0] != speakers[1]
    assert batch.dialogues.size.tolist() == [6] * 6
    assert len(batch) == 4
    labelled = [0, 2, 3, 5]
    assert [CLASSES[batch.labels[n]] for n in labelled] == [order[n].label for n in labelled]
    for modality, layer in (("speech", 0), ("text", 1)):
        entry = FeatureCache(cache).open("made-up", modality=modality)
        for n, utterance in enumerate(order):
            length = int(batch.lengths[modality][n])
            stored = entry[utterance.id]
            assert stored is not None
            read = batch.features[modality][n, 0, :length].numpy()
            assert np.array_equal(read, stored[layer])


def logits(settings: TrainSettings, part: str = "test") -> dict[str, torch.Tensor]:
    """The logits of an untrained head for the official test part."""
    examples = examples_of(settings)
    torch.manual_seed(0)
    head = build(settings, examples)
    trainer = trainer_of(settings, examples)
    chosen = [u for u in examples.utterances if u.split == part]
    context = [u for u in examples.context if u.split == part and "silent" not in u.id]
    features = trainer.features(head)
    found = trainer.predict(head, features, chosen, context=context)
    return {utterance.id: row for utterance, row in zip(chosen, found, strict=True)}


def test_turns_without_numbers_have_the_order_of_the_corpus(tmp_path: Path) -> None:
    numbered = [make_utterance(f"u{n}", dialogue="d", split="train", turn=n) for n in range(4)]
    numbered[1] = replace(numbered[1], label=None)
    plain = [replace(utterance, turn=None) for utterance in numbered]
    expected, found = (
        logits(tiny("hbaf", made_both(tmp_path / name, corpus), tmp_path / "run"), "train")
        for name, corpus in (("numbered", numbered), ("plain", plain))
    )
    assert set(found) == {"u0", "u2", "u3"}
    assert all(torch.equal(found[id], expected[id]) for id in expected)


def test_the_logits_are_those_of_the_head_on_the_whole_dialogue(
    cache: Path, tmp_path: Path
) -> None:
    settings = tiny("hbaf", cache, tmp_path)
    found = logits(settings)
    torch.manual_seed(0)
    head = build(settings, examples_of(settings)).eval()
    entries = {m: FeatureCache(cache).open("made-up", modality=m) for m in BOTH}
    speakers = torch.tensor([0, 1] * 3)
    whole = Dialogues(torch.zeros(6, dtype=torch.int64), torch.full((6,), 6), speakers)
    for n in range(3):
        states: dict[str, list[Any]] = {
            m: [torch.tensor(entries[m][f"test/d{n}u{turn}"]) for turn in range(6)] for m in BOTH
        }
        lengths = {m: torch.tensor([x.shape[1] for x in of_m]) for m, of_m in states.items()}
        padded = {
            m: torch.stack(
                [
                    torch.nn.functional.pad(x, (0, 0, 0, int(lengths[m].max()) - x.shape[1]))
                    for x in of_m
                ]
            )[:, list(head.layers[m])]
            for m, of_m in states.items()
        }
        expected = head(padded, lengths, dialogues=whole).logits
        for turn in (0, 2, 3, 5):
            row = found[f"test/d{n}u{turn}"]
            torch.testing.assert_close(row, expected[turn], atol=1e-5, rtol=0)
    assert len(found) == 12
    for size in (1, 7, 100):
        for id, row in logits(replace(settings, batch_size=size)).items():
            torch.testing.assert_close(row, found[id], atol=1e-5, rtol=0)


def test_a_run_reads_the_context_and_does_not_score_it(run: Run, cache: Path) -> None:
    tested = {u.id for u in talks() if u.split == "test" and u.label is not None}
    assert {row["id"] for row in rows(run)} == tested
    folds = read_json(run.path / "folds.json")
    assert set(folds["excluded"]) == UNLABELLED
    (fold,) = folds["folds"]
    assert not {id for part in ("train", "validation", "test") for id in fold[part]} & UNLABELLED
    assert run.metrics["excluded"] == {"it has no label": len(UNLABELLED)}
    assert run.metrics["context_turns"] == len(CONTEXT)
    assert f"read as context of their dialogues: {len(CONTEXT)} of those left out" in str(run)
    assert evaluate(run.path, device="cpu").facts["aggregate"] == run.metrics["aggregate"]


@pytest.mark.parametrize("head", ["hbaf", "linear"])
def test_without_the_context_the_corpus_might_as_well_not_have_it(
    head: str, cache: Path, run: Run, tmp_path: Path
) -> None:
    none = ("head.unlabelled_turns=false",) if head == "hbaf" else ()
    settings = tiny(head, cache, tmp_path / "with", *none)
    found = train_head(settings)
    assert "context_turns" not in found.metrics
    without = {"speech": [*UNLABELLED], "text": [*UNLABELLED]}
    fewer = made_both(tmp_path / "fewer", talks(), without=without)
    again = train_head(replace(settings, cache=fewer, out=tmp_path / "without"))
    assert results(again)["predictions.csv"] == results(found)["predictions.csv"]
    if head == "hbaf":
        assert results(run)["predictions.csv"] != results(found)["predictions.csv"]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_loss_is_the_mean_over_the_turns_with_a_label(
    cache: Path, tmp_path: Path, accumulate: int
) -> None:
    asked = ("epochs=1", "learning_rate=1e-12", "head.dropout=0.0", "standardise=false")
    settings = tiny("hbaf", cache, tmp_path / "run", *asked, f"accumulate={accumulate}")
    (line,) = log(train_head(settings))
    for part, name in (("train", "cross_entropy"), ("validation", "loss")):
        found = logits(settings, part)
        labels = torch.tensor([CLASSES.index(str(make_utterance(id).label)) for id in found])
        expected = torch.nn.functional.cross_entropy(torch.stack([*found.values()]), labels)
        assert line[part][name] == pytest.approx(float(expected), rel=1e-4)


# Which part a turn belongs to ---------------------------------------------------------------------


def turn(dialogue: str, speaker: str, **fields: Any) -> Utterance:
    return make_utterance(f"{dialogue}-{speaker}", dialogue=dialogue, speaker=speaker, **fields)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"dialogue": "d1", "speaker": "a"}, {"train"}),
        ({"dialogue": "d3", "speaker": "c"}, {"test"}),
        ({"dialogue": "d1", "speaker": None}, {"train"}),
        ({"dialogue": "d1", "speaker": "new"}, {"train"}),
        # Parts of a dialogue are in two parts of the fold.
        ({"dialogue": "d4", "speaker": "a"}, set()),
        # No utterance of the dialogue has a label.
        ({"dialogue": "d9", "speaker": "a"}, set()),
        # The speaker occurs in the test part only.
        ({"dialogue": "d1", "speaker": "c"}, set()),
        # The speaker occurs in both.
        ({"dialogue": "d1", "speaker": "b"}, {"train"}),
        ({"dialogue": "d1", "speaker": "a", "session": "two"}, set()),
        ({"dialogue": "d1", "speaker": "a", "split": "test"}, set()),
    ],
)
def test_a_turn_is_context_only_in_the_part_of_its_dialogue(
    fields: Mapping[str, Any], parts: set[str]
) -> None:
    fold = Fold(
        "fold",
        (turn("d1", "a", session="one"), turn("d1", "b"), turn("d4", "a")),
        (turn("d2", "b"),),
        (turn("d3", "c", session="two", split="test"), turn("d4", "c"), turn("d3", "b")),
    )
    of = make_utterance("unlabelled", label=None, **fields)
    found = {part for part in ("train", "validation", "test") if context_turns(fold, part, [of])}
    assert found == parts
