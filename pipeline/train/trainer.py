"""The training loop: one head, one fold, one seed."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from ...heads import Head, HeadOutput
from ...heads.linear import LinearProbe
from ..corpora import Utterance
from ..errors import NotFiniteError
from ..evaluation.scorers import rank
from ..protocols.folds import PARTS, Fold
from .batches import BatchSampler
from .checkpoint import TrainingProgress, TrainingState
from .context import context_turns
from .features import Batch, FeatureLoader
from .linear_solver import LinearProblem, modality_scale, whole_groups
from .logit_adjustment import adjust
from .objectives import OutputScorer, fit, target_tensor, weight_classes
from .settings import AMP, LBFGS, OPTIMIZERS, TrainSettings
from .standardise import standardise
from .weight_average import WeightAverage

_NONE = torch.empty(0, 0, dtype=torch.float64)

AfterEpoch = Callable[[TrainingState | None, TrainingProgress, dict[str, Any]], None]
"""Called with the state, the progress and the values to log; a linear solver has no state."""


@dataclass(frozen=True)
class TrainedHead:
    """The weights of a head after its best epoch, and its predictions on the test part.

    ``validation`` are the scores of the best epoch. ``predicted`` is (utterances, outputs) float64,
    in the order of the fold's test part: probabilities of the classes, attributes on their own
    scale; without a test it is empty. ``steps`` is the number of optimizer steps in all epochs. For
    a linear head, an epoch and a step are a strength of L2.
    """

    weights: dict[str, Tensor]
    best_epoch: int
    validation: dict[str, float]
    predicted: Tensor
    steps: int


@dataclass(frozen=True)
class Trainer:
    """Trains a head with early stopping on the validation part; predicts the test part once.

    ``build`` makes a new head; ``features`` gives the features of the layers that it reads.
    """

    build: Callable[[], Head]
    features: Callable[[Head], FeatureLoader]
    settings: TrainSettings
    device: torch.device

    def train(
        self,
        fold: Fold,
        seed: int,
        restore: Callable[[TrainingState], TrainingProgress] = lambda state: TrainingProgress(),
        after_epoch: AfterEpoch = lambda *_: None,
        *,
        test: bool = True,
    ) -> TrainedHead:
        """Train on one fold with one seed.

        Args:
            fold: the train, validation and test parts.
            seed: decides the initial weights, the dropout and the order of the batches.
            restore: loads a saved state, and returns its progress.
            after_epoch: called after each epoch with the state, the progress and the values to log.
            test: predict the test part; without it, the head never reads that part.

        Raises:
            NotFiniteError: the loss is not finite.
        """
        settings = self.settings
        torch.manual_seed(seed)
        head = self.build()
        features = self.features(head)
        if settings.standardise:
            standardise(head, features, fold.train)
        targets = features.examples.targets
        fit(head.objective, targets, fold.train)
        score = OutputScorer.of(head.objective, targets)
        if settings.class_weights == "balanced":
            weight_classes(head.objective, targets, fold.train)
        head.to(self.device)
        optimizer = settings.optimizer_of(head)
        if optimizer == LBFGS:
            assert isinstance(head, LinearProbe)  # noqa: S101 -- no other head is linear
            return self._solve(head, features, fold, score, after_epoch, test)
        state = TrainingState(
            head,
            OPTIMIZERS[optimizer](
                _parameter_groups(head, settings.weight_decay),
                lr=settings.learning_rate,
                fused=True,  # a loop over many small weights is slow on a CPU
            ),
            GradScaler(self.device.type, enabled=settings.amp == "float16"),
            torch.Generator().manual_seed(seed),
            self.device,
            WeightAverage(head, settings.ema) if settings.ema else None,
        )
        context = {part: context_turns(fold, part, features.examples.context) for part in PARTS}
        plan = self._plan(head, features, fold.train, context["train"])
        progress = restore(state)
        while not self._finished(progress):
            started = time.monotonic()
            progress.epoch += 1
            terms = self.epoch(state, features, plan, progress.epoch)
            tested = state.tested
            logits = self.predict(tested, features, fold.validation, context=context["validation"])
            validation = score(logits, fold.validation)
            _require_finite((*terms.values(), validation["loss"]), fold.name, progress.epoch)
            reached = self._rank(validation)
            if progress.best is None or reached > progress.best:
                progress.best, progress.best_epoch = reached, progress.epoch
                progress.validation, progress.weights = validation, deepcopy(tested.state_dict())
            seconds = round(time.monotonic() - started, 3)
            after_epoch(
                state,
                progress,
                {"epoch": progress.epoch, "train": terms, "validation": validation}
                | {"steps": _steps(state.optimizer), "seconds": seconds},
            )
        head.load_state_dict(progress.weights)
        scores = progress.validation
        if settings.logit_adjustment == "validation":
            part = fold.validation
            outputs = self.predict(head, features, part, context=context["validation"])
            score, scores = self._adjusted(head, score, outputs, fold, part)
        predicted = _NONE
        if test:
            outputs = self.predict(head, features, fold.test, context=context["test"])
            predicted = score.predictions(outputs)
        weights = {name: value.cpu() for name, value in head.state_dict().items()}
        steps = _steps(state.optimizer)
        return TrainedHead(weights, progress.best_epoch, scores, predicted, steps)

    def predict(
        self,
        head: Head,
        features: FeatureLoader,
        utterances: Sequence[Utterance],
        missing: Collection[str] = (),
        context: Sequence[Utterance] = (),
    ) -> Tensor:
        """Return outputs (utterances, outputs) float32 on the CPU, in the order given.

        ``missing`` are modalities that are hidden from the head: their length is 0. ``context`` are
        turns of the same dialogues that are only read.
        """
        head.eval()
        row = {utterance.id: number for number, utterance in enumerate(utterances)}
        logits = torch.empty(len(row), head.n_classes)
        plan = self._plan(head, features, utterances, context)
        with torch.inference_mode(), autocast(self.device, self.settings.amp):
            order = plan.order()
            for part, batch in zip(order, features.batches(plan, order, missing), strict=True):
                found = _forward(head, batch, labels=None).logits.float().cpu()
                predicted = [n for n, utterance in enumerate(part) if utterance.id in row]
                logits[[row[part[n].id] for n in predicted]] = found[predicted]
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
        parts = plan.steps(state.order)
        loaded = features.batches(plan, [batch for part in parts for batch in part])
        total = -(-len(parts) // settings.accumulate)
        for step in range(total):
            first = step * settings.accumulate
            n_batches = sum(map(len, parts[first : first + settings.accumulate]))
            batches = list(islice(loaded, n_batches))
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
                state.scaler.unscale_(state.optimizer)
                if settings.clip:
                    nn.utils.clip_grad_norm_(head.parameters(), settings.clip)
                state.scaler.step(state.optimizer)
                state.scaler.update()
                if state.average is not None:
                    state.average.update(head)
        return {name: float(value) / count for name, value in sums.items()}

    def _solve(
        self,
        head: LinearProbe,
        features: FeatureLoader,
        fold: Fold,
        score: OutputScorer,
        after_epoch: AfterEpoch,
        test: bool,
    ) -> TrainedHead:
        """Train a linear head by logistic or ridge regression; see :mod:`.linear_solver`."""
        both = [*fold.train, *fold.validation]
        scale = modality_scale([*head.joined.values()]).to(self.device)

        def ranked(
            logits: Tensor, rows: Sequence[int]
        ) -> tuple[dict[str, float], tuple[float, float]]:
            validation = score(logits.cpu(), [both[row] for row in rows])
            return validation, self._rank(validation)

        problem = LinearProblem(
            torch.cat(list(self._vectors(head, features, both))) * scale,
            target_tensor(score.targets, both).to(self.device),
            len(fold.train),
            head.objective,
            whole_groups(fold.train, fold.validation),
            self.settings.class_weights == "balanced",
            ranked,
        )
        progress = TrainingProgress()

        def log(number: int, strength: float, validation: dict[str, float]) -> None:
            progress.epoch = number
            values = {"epoch": number, "l2": strength, "validation": validation}
            after_epoch(None, progress, values)

        given = self.settings.l2
        chosen = problem.solve(None if given is None else [given], log)
        with torch.no_grad():
            head.classifier.weight.copy_(chosen.model.weight * scale)
            head.classifier.bias.copy_(chosen.model.bias)
        scores = {**chosen.validation, "l2": chosen.strength}
        if self.settings.logit_adjustment == "validation":
            outputs, rows = chosen.held_out
            part = [both[row] for row in rows]
            score, adjusted = self._adjusted(head, score, outputs.cpu(), fold, part)
            scores |= adjusted
        predicted = score.predictions(self.predict(head, features, fold.test)) if test else _NONE
        weights = {name: value.cpu() for name, value in head.state_dict().items()}
        return TrainedHead(weights, chosen.number, scores, predicted, chosen.number)

    def _vectors(
        self, head: LinearProbe, features: FeatureLoader, utterances: Sequence[Utterance]
    ) -> Iterator[Tensor]:
        """Yield the inputs of a linear head's classifier, in the order given."""
        size = self.settings.batch_size
        for start in range(0, len(utterances), size):
            batch = features.batch(utterances[start : start + size])
            vectors = head.vectors(batch.features, batch.lengths)
            yield torch.cat([vectors[m] for m in head.dims], dim=1)

    def _adjusted(
        self,
        head: Head,
        score: OutputScorer,
        outputs: Tensor,
        fold: Fold,
        part: Sequence[Utterance],
    ) -> tuple[OutputScorer, dict[str, float]]:
        """Adjust the logits of a head by the outputs of a validation part.

        Return the scorer of the head, the scores of the part and the strength.
        """

        def ranked(scorer: OutputScorer) -> tuple[float, float]:
            return self._rank(scorer(outputs, part))

        strength = adjust(head.objective, score.targets, fold.train, ranked)
        score = OutputScorer.of(head.objective, score.targets)
        return score, {**score(outputs, part), "logit_adjustment": strength}

    def _rank(self, validation: dict[str, float]) -> tuple[float, float]:
        """Return what is compared between epochs, or strengths of L2: larger is better."""
        monitor = self.settings.monitor
        # On a small part several epochs often have the same score; then the loss decides.
        return rank(monitor, validation[monitor]), -validation["loss"]

    def _finished(self, progress: TrainingProgress) -> bool:
        waited = progress.epoch - progress.best_epoch
        return progress.epoch >= self.settings.epochs or waited >= self.settings.patience

    def _plan(
        self,
        head: Head,
        features: FeatureLoader,
        utterances: Sequence[Utterance],
        context: Sequence[Utterance],
    ) -> BatchSampler:
        examples = features.examples
        return BatchSampler(
            utterances,
            self.settings.batch_size,
            examples.length,
            head.reads_dialogues,
            context,
            examples.place,
        )


def autocast(device: torch.device, amp: str) -> AbstractContextManager[Any]:
    """Return the context for mixed precision; ``amp`` is a key of :data:`AMP`."""
    dtype = AMP[amp]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def _forward(
    head: Head, batch: Batch, labels: Tensor | None, turn: str | None = None
) -> HeadOutput:
    more: dict[str, Any] = {}
    if batch.dialogues is not None:
        more["dialogues"] = batch.dialogues
    if turn is not None:
        more["turn"] = turn
    forward: Callable[..., HeadOutput] = head.classify if head.reads_pooled else head
    return forward(batch.features, batch.lengths, labels, **more)


def _parameter_groups(head: Head, weight_decay: float) -> list[dict[str, Any]]:
    """Divide the parameters: only the matrices of layers decay.

    Norms, biases, the mix of layers, and vectors that are learned as such (queries, bottlenecks,
    embeddings) do not: to shrink them is no prior that anybody means.
    """
    layers = (nn.Linear, nn.RNNBase, nn.MultiheadAttention, nn.Conv1d)
    decayed = {
        id(parameter)
        for module in head.modules()
        if isinstance(module, layers)
        for parameter in module.parameters(recurse=False)
        if parameter.dim() > 1
    }
    parameters = list(head.parameters())
    return [
        {"params": [p for p in parameters if id(p) in decayed], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
    ]


def _require_finite(losses: Iterable[float], fold: str, epoch: int) -> None:
    if not all(map(math.isfinite, losses)):
        raise NotFiniteError(
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


def _steps(optimizer: torch.optim.Optimizer) -> int:
    """Return how often an optimizer has updated the weights; skipped steps do not count.

    Adam counts the steps of each weight: a weight without a gradient is not updated.
    """
    return max((int(moments["step"]) for moments in optimizer.state.values()), default=0)
