"""One training: which epoch is kept, what the seed decides, and how gradients are clipped."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from mser.heads import Head
from mser.pipeline.corpora import Utterance
from mser.pipeline.protocols.folds import Fold
from mser.pipeline.train import batches as batches_module
from mser.pipeline.train import trainer as trainer_module
from mser.pipeline.train.batches import BatchSampler
from mser.pipeline.train.jobs import examples_of, trainer_of
from mser.pipeline.train.objectives import OutputScorer
from mser.pipeline.train.trainer import Trainer
from mser.tests.support.small_corpora import make_folds
from mser.tests.support.train_runs import made, made_cache, official


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of speech. Do not change them."""
    return made_cache(tmp_path_factory.mktemp("trainer") / "cache", official())


def trainer_and_fold(cache: Path, *asked: str) -> tuple[Trainer, Fold]:
    settings = made(cache, Path(), "patience=99", *asked)
    examples = examples_of(settings)
    (fold,) = make_folds(examples.utterances, "official")
    return trainer_of(settings, examples), fold


# Which epoch is kept ------------------------------------------------------------------------------


@pytest.fixture
def validation_scores(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """The scores of the validation part, an element for each epoch: fill it before a training."""
    scripted: list[dict[str, float]] = []
    epochs: Iterator[dict[str, float]] = iter(scripted)
    monkeypatch.setattr(OutputScorer, "__call__", lambda *_: next(epochs))
    return scripted


def scores(wa: float, ua: float, weighted_f1: float, macro_f1: float, loss: float) -> Any:
    return {
        "wa": wa, "ua": ua, "weighted_f1": weighted_f1, "macro_f1": macro_f1, "loss": loss,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("monitor", "best"),
    [("wa", 1), ("ua", 2), ("weighted_f1", 3), ("macro_f1", 4), ("loss", 5)],
)
def test_the_epoch_with_the_best_monitor_is_kept(
    cache: Path, validation_scores: list[Any], monitor: str, best: int
) -> None:
    validation_scores += [
        scores(0.9, 0.1, 0.2, 0.3, 0.7),
        scores(0.1, 0.9, 0.3, 0.2, 0.6),
        scores(0.2, 0.3, 0.9, 0.1, 0.9),
        scores(0.3, 0.2, 0.1, 0.9, 0.8),
        scores(0.0, 0.0, 0.0, 0.0, 0.1),
        scores(0.4, 0.4, 0.4, 0.4, 0.4),
    ]
    trainer, fold = trainer_and_fold(cache, "epochs=6", f"monitor={monitor}")
    trained = trainer.train(fold, 0)
    assert trained.best_epoch == best
    assert trained.validation == validation_scores[best - 1]


@pytest.mark.parametrize(
    ("losses", "best"), [((0.9, 0.5, 0.7), 2), ((0.5, 0.9, 0.7), 1), ((0.5, 0.5, 0.5), 1)]
)
def test_of_epochs_with_the_same_score_the_one_with_the_lower_loss_is_kept(
    cache: Path, validation_scores: list[Any], losses: Sequence[float], best: int
) -> None:
    validation_scores += [scores(0.5, 0.5, 0.5, 0.5, loss) for loss in losses]
    trainer, fold = trainer_and_fold(cache, "epochs=3")
    assert trainer.train(fold, 0).best_epoch == best


def test_an_epoch_whose_score_is_not_a_number_is_the_worst(
    cache: Path, validation_scores: list[Any]
) -> None:
    """As that of a metric of your own, for a class that is not predicted yet."""
    validation_scores += [scores(math.nan, 0.5, 0.5, 0.5, 0.1), *[scores(*[0.5] * 5)] * 2]
    trainer, fold = trainer_and_fold(cache, "epochs=3", "monitor=wa")
    assert trainer.train(fold, 0).best_epoch == 2


# The seed -----------------------------------------------------------------------------------------


def first_weights(trainer: Trainer, fold: Fold, seed: int) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}

    def build() -> Head:
        head = trainer.build()
        kept.update({name: value.clone() for name, value in head.state_dict().items()})
        return head

    replace(trainer, build=build).train(fold, seed)
    return kept


def test_the_seed_decides_the_first_weights(cache: Path) -> None:
    trainer, fold = trainer_and_fold(cache, "epochs=1")
    torch.manual_seed(3)
    expected = trainer.build().state_dict()
    torch.rand(5)  # numbers drawn before have no influence
    weights = first_weights(trainer, fold, seed=3)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    other = first_weights(trainer, fold, seed=4)
    assert not torch.equal(weights["classifier.weight"], other["classifier.weight"])


def test_the_seed_decides_the_order_of_the_batches(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = BatchSampler.steps
    shuffled: list[list[list[str]]] = []

    def watched(self: BatchSampler, shuffle: Any = None) -> list[list[list[Utterance]]]:
        steps = made(self, shuffle)
        if shuffle is not None:
            shuffled.append([[utterance.id for utterance in batch] for (batch,) in steps])
        return steps

    monkeypatch.setattr(BatchSampler, "steps", watched)
    trainer, fold = trainer_and_fold(cache, "epochs=2", "batch_size=4")
    by_seed = []
    for seed in (3, 4, 3):
        trainer.train(fold, seed)
        by_seed.append(list(shuffled))
        shuffled.clear()
    assert by_seed[0] == by_seed[2]
    assert by_seed[0] != by_seed[1]
    assert by_seed[0][0] != by_seed[0][1]  # it also differs between epochs


# Gradients ----------------------------------------------------------------------------------------


def first_gradient(trainer: Trainer, fold: Fold) -> Tensor:
    """The gradient with which the optimizer makes its first step, all parameters in one vector."""
    steps: list[Tensor] = []

    def keep(optimizer: Optimizer, *_: Any) -> None:
        parameters = [
            parameter for group in optimizer.param_groups for parameter in group["params"]
        ]
        steps.append(torch.cat([parameter.grad.flatten() for parameter in parameters]).clone())

    handle = register_optimizer_step_pre_hook(keep)
    try:
        trainer.train(fold, 0)
    finally:
        handle.remove()
    return steps[0]


def test_gradients_are_clipped_after_unscaling(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = 0.01
    gradient = first_gradient(*trainer_and_fold(cache, "epochs=1"))
    assert float(gradient.norm()) > clip
    monkeypatch.setattr(
        trainer_module, "GradScaler", lambda *_, **__: GradScaler("cpu", init_scale=1024.0)
    )
    scaled = first_gradient(*trainer_and_fold(cache, "epochs=1"))
    torch.testing.assert_close(scaled, gradient)
    clipped = first_gradient(*trainer_and_fold(cache, "epochs=1", f"clip={clip}"))
    torch.testing.assert_close(clipped, gradient * clip / gradient.norm(), rtol=1e-3, atol=1e-7)


def test_long_utterances_weigh_no_more_than_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = official()
    frames = {utterance.id: 2 + 9 * (number % 3) for number, utterance in enumerate(corpus)}
    cache = made_cache(tmp_path, corpus, frames=frames)
    asked = ("epochs=1", "batch_size=16", "head.pooling=attention")
    gradient = first_gradient(*trainer_and_fold(cache, *asked))
    monkeypatch.setattr(batches_module, "_MOST_FRAMES", 20)
    trainer, fold = trainer_and_fold(cache, *asked)
    lengths = {utterance.id: frames[utterance.id] for utterance in fold.train}
    steps = BatchSampler(fold.train, 16, lambda utterance: lengths[utterance.id]).steps()
    assert max(map(len, steps)) > 1  # several batches in a step, of different sizes
    torch.testing.assert_close(first_gradient(trainer, fold), gradient)
