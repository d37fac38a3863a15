"""The training loop: one head, one fold, one seed."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from ...heads import Head, HeadOutput
from ..corpora import Utterance
from ..errors import PipelineError
from ..evaluation.metrics import Predictions, scores
from ..protocols.folds import Fold
from .batches import BatchSampler
from .checkpoint import TrainingProgress, TrainingState
from .features import Batch, FeatureLoader, LayerPositions
from .settings import AMP, OPTIMIZERS, TrainSettings

AfterEpoch = Callable[[TrainingState, TrainingProgress, dict[str, Any]], None]


@dataclass(frozen=True)
class TrainedHead:
    """The weights of a head after its best epoch, and its predictions on the test part.

    ``validation`` are the scores of the best epoch. ``probabilities`` is (utterances, classes)
    float64, in the order of the fold's test part.
    """

    weights: dict[str, Tensor]
    best_epoch: int
    validation: dict[str, float]
    probabilities: Tensor


@dataclass(frozen=True)
class Trainer:
    """Trains a head with early stopping on the validation part; predicts the test part once.

    ``build`` makes a new head; ``features`` gives the features of the layers that it reads.
    """

    build: Callable[[], Head]
    features: Callable[[LayerPositions], FeatureLoader]
    settings: TrainSettings
    device: torch.device

    def train(
        self,
        fold: Fold,
        seed: int,
        restore: Callable[[TrainingState], TrainingProgress] = lambda state: TrainingProgress(),
        after_epoch: AfterEpoch = lambda *_: None,
    ) -> TrainedHead:
        """Train on one fold with one seed.

        Args:
            fold: the train, validation and test parts.
            seed: decides the initial weights, the dropout and the order of the batches.
            restore: loads a saved state, and returns its progress.
            after_epoch: called after each epoch with the state, the progress and the values to log.

        Raises:
            PipelineError: the loss is not finite.
        """
        settings = self.settings
        torch.manual_seed(seed)
        head = self.build().to(self.device)
        features = self.features(head.layers)
        if settings.class_weights == "balanced":
            head.class_weights = _balanced(fold.train, features).to(self.device)
        state = TrainingState(
            head,
            OPTIMIZERS[settings.optimizer](
                head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
            ),
            GradScaler(self.device.type, enabled=settings.amp == "float16"),
            torch.Generator().manual_seed(seed),
            self.device,
        )
        plan = self._plan(head, features, fold.train)
        progress = restore(state)
        while not self._finished(progress):
            started = time.monotonic()
            progress.epoch += 1
            terms = self.epoch(state, features, plan, progress.epoch)
            logits = self.predict(head, features, fold.validation)
            validation = _scored(logits, fold.validation, features)
            _require_finite((*terms.values(), validation["loss"]), fold.name, progress.epoch)
            # On a small part several epochs often have the same score; then the loss decides.
            sign = -1 if settings.monitor == "loss" else 1
            reached = (sign * validation[settings.monitor], -validation["loss"])
            if progress.best is None or reached > progress.best:
                progress.best, progress.best_epoch = reached, progress.epoch
                progress.validation, progress.weights = validation, deepcopy(head.state_dict())
            seconds = round(time.monotonic() - started, 3)
            after_epoch(
                state,
                progress,
                {"epoch": progress.epoch, "train": terms, "validation": validation}
                | {"seconds": seconds},
            )
        head.load_state_dict(progress.weights)
        probabilities = self.predict(head, features, fold.test).double().softmax(dim=1)
        best = {name: value.cpu() for name, value in progress.weights.items()}
        return TrainedHead(best, progress.best_epoch, progress.validation, probabilities)

    def predict(
        self,
        head: Head,
        features: FeatureLoader,
        utterances: Sequence[Utterance],
        missing: Collection[str] = (),
    ) -> Tensor:
        """Return logits (utterances, classes) float32 on the CPU, in the order given.

        ``missing`` are modalities that are hidden from the head: their length is 0.
        """
        head.eval()
        row = {utterance.id: number for number, utterance in enumerate(utterances)}
        logits = torch.empty(len(row), head.n_classes)
        plan = self._plan(head, features, utterances)
        with torch.inference_mode(), autocast(self.device, self.settings.amp):
            order = plan.order()
            for part, batch in zip(order, features.batches(plan, order, missing), strict=True):
                output = _forward(head, batch, labels=None)
                logits[[row[utterance.id] for utterance in part]] = output.logits.float().cpu()
        return logits

    def epoch(
        self, state: TrainingState, features: FeatureLoader, plan: BatchSampler, epoch: int
    ) -> dict[str, float]:
        """Train on every utterance once.

        Return the means of the loss, its terms and the head's counts: over the batches, weighted by
        their utterances, and over the turns.
        """
        head, settings = state.head.train(), self.settings
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        count = 0
        order = plan.order(state.order)
        total = -(-len(order) // settings.accumulate)
        steps = _grouped(features.batches(plan, order), settings.accumulate)
        for step, batches in enumerate(steps):
            factor = _rate(settings, epoch - 1 + (step + 0.5) / total)
            for group in state.optimizer.param_groups:
                group["lr"] = settings.learning_rate * factor
            size = sum(map(len, batches))
            count += size
            turns: tuple[str | None, ...] = head.turns() or (None,)
            for turn in turns:
                state.optimizer.zero_grad()
                for batch in batches:
                    with autocast(self.device, self.settings.amp):
                        output = _forward(head, batch, batch.labels, turn)
                    assert output.loss is not None  # noqa: S101 -- labels were given
                    share = len(batch) / size
                    state.scaler.scale(output.loss * share).backward()  # type: ignore[no-untyped-call]
                    logged = {"loss": output.loss.detach(), **output.terms, **output.counts}
                    for name, value in logged.items():
                        sums[name] += value.float() * len(batch) / len(turns)
                if settings.clip:
                    state.scaler.unscale_(state.optimizer)
                    nn.utils.clip_grad_norm_(head.parameters(), settings.clip)
                state.scaler.step(state.optimizer)
                state.scaler.update()
        return {name: float(value) / count for name, value in sums.items()}

    def _finished(self, progress: TrainingProgress) -> bool:
        waited = progress.epoch - progress.best_epoch
        return progress.epoch >= self.settings.epochs or waited >= self.settings.patience

    def _plan(
        self, head: Head, features: FeatureLoader, utterances: Sequence[Utterance]
    ) -> BatchSampler:
        length = features.examples.length
        return BatchSampler(utterances, self.settings.batch_size, length, head.reads_dialogues)


def autocast(device: torch.device, amp: str) -> AbstractContextManager[Any]:
    """Return the context for mixed precision; ``amp`` is a key of :data:`AMP`."""
    dtype = AMP[amp]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def predictions(fold: Fold, seed: int, scored: Tensor, classes: Sequence[str]) -> Predictions:
    """Return the predictions of a head on the test part of a fold.

    ``scored`` is (utterances, classes), logits or probabilities in the order of the test part.
    """
    labels = [str(utterance.label) for utterance in fold.test]
    best = [classes[i] for i in scored.argmax(dim=1)]
    return Predictions(fold.name, seed, labels, best, [utterance.id for utterance in fold.test])


def _forward(
    head: Head, batch: Batch, labels: Tensor | None, turn: str | None = None
) -> HeadOutput:
    more: dict[str, Any] = {}
    if batch.dialogues is not None:
        more["dialogues"] = batch.dialogues
    if turn is not None:
        more["turn"] = turn
    return head(batch.features, batch.lengths, labels, **more)


def _grouped(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _require_finite(losses: Iterable[float], fold: str, epoch: int) -> None:
    if not all(map(math.isfinite, losses)):
        raise PipelineError(
            f"the loss of fold '{fold}' was not finite in epoch {epoch}: lower learning_rate, "
            "set clip, or set amp=off"
        )


def _rate(settings: TrainSettings, epochs: float) -> float:
    """Return the factor of the learning rate after ``epochs``, which may be a fraction."""
    done = epochs / settings.epochs
    if done < settings.warmup:
        return done / settings.warmup
    left = (1 - done) / (1 - settings.warmup)
    match settings.schedule:
        case "linear":
            return left
        case "cosine":
            return (1 - math.cos(math.pi * left)) / 2
    return 1.0


def _balanced(utterances: Sequence[Utterance], features: FeatureLoader) -> Tensor:
    """Return the inverse frequency of each class; 1 for a class that does not occur."""
    classes = features.examples.corpus.classes
    labels = [str(utterance.label) for utterance in utterances]
    present = [name for name in classes if name in set(labels)]
    weights = compute_class_weight("balanced", classes=np.array(present), y=labels)
    weight_of = dict(zip(present, weights.tolist(), strict=True))
    return torch.tensor([weight_of.get(name, 1.0) for name in classes])


def _scored(
    logits: Tensor, utterances: Sequence[Utterance], features: FeatureLoader
) -> dict[str, float]:
    classes = features.examples.corpus.classes
    labels = [str(utterance.label) for utterance in utterances]
    targets = torch.tensor([classes.index(label) for label in labels])
    predicted = [classes[i] for i in logits.argmax(dim=1)]
    return {**scores(labels, predicted), "loss": float(F.cross_entropy(logits, targets))}
