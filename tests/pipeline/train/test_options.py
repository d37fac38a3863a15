"""Each setting of a training has its effect."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from mser.heads import HEADS, Head
from mser.heads.objectives import Classes
from mser.pipeline.corpora import Utterance
from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.train import TrainSettings, train_head
from mser.pipeline.train.features import FeatureLoader
from mser.pipeline.train.jobs import examples_of, trainer_of
from mser.pipeline.train.trainer import TrainedHead
from mser.tests.support.small_corpora import make_folds
from mser.tests.support.train_runs import CLASSES, log, made_both, official, results, timeless, tiny

TRAIN = 28  # utterances of the training part
NOTHING = {"speech": (0, 0, 0, 0), "text": (0, 0, 0, 0)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of both modalities. Do not change them."""
    corpus = official(train=TRAIN, validation=8, test=8)
    return made_both(tmp_path_factory.mktemp("options") / "cache", corpus)


def fit(settings: TrainSettings) -> tuple[TrainedHead, Head]:
    """Train by the official splits, without a folder; return also the head."""
    examples = examples_of(settings)
    (fold,) = make_folds(examples.utterances, "official")
    trainer = trainer_of(settings, examples)
    torch.manual_seed(0)
    head = trainer.build()
    return replace(trainer, build=lambda: head).train(fold, 0), head


@contextmanager
def watched(look: Callable[[Optimizer], object], before: bool = False) -> Iterator[list[object]]:
    """Collect what ``look`` returns at each step of an optimizer."""
    found: list[object] = []
    register = register_optimizer_step_pre_hook if before else register_optimizer_step_post_hook
    handle = register(lambda optimizer, *_: found.append(look(optimizer)))
    try:
        yield found
    finally:
        handle.remove()


def parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def gradients(optimizer: Optimizer) -> list[Tensor]:
    return [
        parameter.grad.clone() for parameter in parameters(optimizer) if parameter.grad is not None
    ]


# Steps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warmup", [0.0, 0.3])
@pytest.mark.parametrize(
    ("schedule", "after_warmup"),
    [
        ("constant", lambda share: 1.0),
        ("linear", lambda share: 1 - share),
        ("cosine", lambda share: 0.5 * (1 + math.cos(math.pi * share))),
    ],
)
def test_the_learning_rate_follows_the_schedule(
    cache: Path,
    tmp_path: Path,
    schedule: str,
    after_warmup: Callable[[float], float],
    warmup: float,
) -> None:
    asked = (f"schedule={schedule}", f"warmup={warmup}", "learning_rate=0.02", "accumulate=2")
    with watched(lambda optimizer: optimizer.param_groups[0]["lr"]) as rates:
        fit(tiny("linear", cache, tmp_path, *asked))
    assert len(rates) == 3 * 2  # epochs, and 28 utterances in batches of 8, two for a step
    for number, rate in enumerate(rates):
        at = (number + 0.5) / len(rates)
        factor = at / warmup if at < warmup else after_warmup((at - warmup) / (1 - warmup))
        assert rate == pytest.approx(0.02 * factor)


def test_gradients_are_clipped_to_the_norm(cache: Path, tmp_path: Path) -> None:
    def norm(optimizer: Optimizer) -> float:
        return float(torch.cat([gradient.flatten() for gradient in gradients(optimizer)]).norm())

    for clip, expected in ((0.0, False), (0.05, True)):
        with watched(norm, before=True) as norms:
            fit(tiny("linear", cache, tmp_path, f"clip={clip}"))
        assert all(value == pytest.approx(0.05, rel=1e-3) for value in norms) is expected
        assert len(norms) == 12


@pytest.mark.parametrize(("name", "kind"), [("adam", "Adam"), ("adamw", "AdamW")])
def test_the_chosen_optimizer_is_used(cache: Path, tmp_path: Path, name: str, kind: str) -> None:
    asked = (f"optimizer={name}", "weight_decay=0.25")
    with watched(
        lambda optimizer: (type(optimizer).__name__, optimizer.param_groups[0]["weight_decay"])
    ) as found:
        fit(tiny("linear", cache, tmp_path, *asked))
    assert set(found) == {(kind, 0.25)}


@pytest.mark.parametrize("size", [4, 5])
def test_accumulated_gradients_are_those_of_the_large_batch(
    cache: Path, tmp_path: Path, size: int
) -> None:
    count = -(-TRAIN // size)
    found = []
    for batch, accumulate in ((TRAIN, 1), (size, count)):
        asked = ("epochs=1", f"batch_size={batch}", f"accumulate={accumulate}")
        with watched(gradients, before=True) as steps:
            fit(tiny("linear", cache, tmp_path, *asked))
        assert len(steps) == 1
        found += steps
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-5)


def test_hbf_makes_one_step_for_each_turn(cache: Path, tmp_path: Path) -> None:
    examples = examples_of(tiny("hbf", cache, tmp_path))
    for mb, turns in (("true", 2), ("false", 1)):
        with watched(
            lambda optimizer: {id(p) for p in parameters(optimizer) if p.grad is not None}
        ) as moved:
            _, head = fit(tiny("hbf", cache, tmp_path, f"head.mb={mb}", "accumulate=2"))
        assert len(moved) == 3 * 2 * turns
        stems = [
            {
                id(parameter)
                for name, parameter in head.named_parameters()
                if name.startswith(f"stems.{m}.")
            }
            for m in examples.entries
        ]
        touched = [[bool(stem & ids) for stem in stems] for ids in moved]  # type: ignore[operator]
        if turns == 1:
            assert all(step == [True, True] for step in touched)
        else:
            for first, second in zip(touched[::2], touched[1::2], strict=True):
                assert sorted([first, second]) == [[False, True], [True, False]]


# Losses -------------------------------------------------------------------------------------------


def relabelled(corpus: list[Utterance], labels: str) -> list[Utterance]:
    return [
        replace(utterance, label=CLASSES[int(labels[n % len(labels)])])
        for n, utterance in enumerate(corpus)
    ]


def test_balanced_weights_are_the_inverse_of_the_frequency(tmp_path: Path) -> None:
    # Classes 0, 1 and 2 as 4 : 2 : 1, and class 3 not at all.
    corpus = relabelled(official(train=TRAIN), "0000112")
    cache = made_both(tmp_path / "cache", corpus)
    _, head = fit(tiny("linear", cache, tmp_path, "class_weights=balanced"))
    labels = [str(utterance.label) for utterance in corpus if utterance.split == "train"]
    expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    assert isinstance(head.objective, Classes)
    assert head.objective.class_weights is not None
    assert head.objective.class_weights.tolist() == pytest.approx([*expected, 1.0])
    assert head.objective.class_weights.tolist() == pytest.approx([7 / 12, 7 / 6, 7 / 3, 1.0])
    _, head = fit(tiny("linear", cache, tmp_path))
    assert head.objective.class_weights is None


def test_balanced_weights_help_the_rare_class(tmp_path: Path) -> None:
    corpus = relabelled(official(train=40, validation=20, test=20), "0000000001")
    cache = made_both(tmp_path / "cache", corpus, shown=NOTHING)  # only the frequency is learnt
    rare = {}
    for weights in ("none", "balanced"):
        asked = (f"class_weights={weights}", "epochs=8", "learning_rate=0.1", "patience=99")
        plain = ("standardise=false", "head.pooling=mean")  # noise is not to be learnt
        trained, _ = fit(tiny("linear", cache, tmp_path, *asked, *plain, layer="mix"))
        rare[weights] = float(trained.predicted[:, 1].mean())
    assert rare["none"] < 0.25
    assert rare["balanced"] > rare["none"] + 0.1


def test_the_monitor_may_be_the_loss(tmp_path: Path) -> None:
    # A head that overfits to noise makes the validation loss rise again.
    corpus = official(train=TRAIN)
    cache = made_both(tmp_path / "cache", corpus, shown=NOTHING)
    asked = ("monitor=loss", "epochs=8", "learning_rate=0.1")
    done = train_head(tiny("linear", cache, tmp_path / "run", *asked))
    losses = [line["validation"]["loss"] for line in log(done)]
    assert losses[done.metrics["folds"][0]["best_epoch"] - 1] == min(losses)
    assert min(losses) < losses[-1]  # so the chosen epoch is not the last one
    assert "loss" in done.metrics["selected_by"]


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_loss_that_is_not_finite_is_one_sentence(
    cache: Path, tmp_path: Path, epochs: int
) -> None:
    """Also if only the last step of a training makes the weights infinite."""
    asked = ("learning_rate=1e30", f"epochs={epochs}", f"batch_size={TRAIN}")
    with pytest.raises(
        PipelineError, match=r"not finite in epoch .: lower learning_rate"
    ) as raised:
        train_head(tiny("query", cache, tmp_path / "run", *asked))
    assert "\n" not in str(raised.value)
    assert "fold 'official'" in str(raised.value)
    assert not (tmp_path / "run" / "metrics.json").exists()


# Precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", sorted(HEADS))
def test_bfloat16_trains_on_a_cpu_and_is_close_to_float32(
    head: str, cache: Path, tmp_path: Path
) -> None:
    asked = ("amp=bfloat16", "class_weights=balanced", "epochs=2", "clip=1.0")
    settings = tiny(head, cache, tmp_path, *asked)
    trained, model = fit(settings)
    assert all(torch.isfinite(tensor).all() for tensor in trained.weights.values())
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    examples = examples_of(settings)
    logits = []
    for amp in ("bfloat16", "off"):
        trainer = trainer_of(replace(settings, amp=amp), examples)
        features: FeatureLoader = trainer.features(model)
        logits.append(trainer.predict(model, features, examples.utterances))
    assert not torch.equal(*logits)
    torch.testing.assert_close(*logits, atol=0.1, rtol=0.05)


def test_float16_on_a_cpu_is_refused_before_a_folder_is_made(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give amp=bfloat16 on a CPU"):
        train_head(tiny("linear", cache, tmp_path / "run", "amp=float16"))
    assert not (tmp_path / "run").exists()


# Features -----------------------------------------------------------------------------------------


def test_memory_and_streaming_give_the_same_bytes(cache: Path, tmp_path: Path) -> None:
    first, *others = (
        train_head(tiny("query", cache, tmp_path / keep, f"features={keep}"))
        for keep in ("memory", "stream", "auto")
    )
    for other in others:
        assert results(other) == results(first)
        assert timeless(other) == timeless(first)


def test_settings_that_a_solver_does_not_use_are_named(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    solved = TrainSettings("linear", "made-up", cache, out=tmp_path / "run", device="cpu", l2=0.1)
    train_head(solved.with_overrides(["epochs=3", "learning_rate=0.1", "monitor=ua"]))
    (note,) = (line for line in capsys.readouterr().err.splitlines() if "note" in line)
    assert "epochs, learning_rate has no effect on linear" in note
    by_epochs = ["epochs=1", "optimizer=adamw"]
    train_head(replace(solved, out=tmp_path / "other", l2=None).with_overrides(by_epochs))
    assert "no effect" not in capsys.readouterr().err
