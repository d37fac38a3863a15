"""The training loop: one head, one fold, one seed."""

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...heads import Head
from ..corpora import Utterance
from ..metrics import scores
from .examples import Examples
from .protocols import Fold
from .settings import TrainSettings

Log = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Trained:
    """A head as it was in its best epoch, and what it says on the test part.

    ``probabilities`` is (utterances, classes) and ``predicted`` a class an utterance, both in the
    order of the fold's test part.
    """

    weights: dict[str, Tensor]
    best_epoch: int
    validation: dict[str, float]
    probabilities: Tensor
    predicted: list[str]


def train(
    build: Callable[[], Head],
    examples: Examples,
    fold: Fold,
    settings: TrainSettings,
    seed: int,
    device: torch.device,
    log: Log,
) -> Trained:
    """Train a head until the validation part says stop; score it once on the test part."""
    torch.manual_seed(seed)
    head = build().to(device)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    order = torch.Generator().manual_seed(seed)
    best: tuple[float, float] | None = None
    for epoch in range(1, settings.epochs + 1):
        started = time.monotonic()
        terms = _epoch(head, examples, fold.train, settings, optimizer, order, device)
        validation = _validate(head, examples, fold.validation, settings, device)
        # Where the metric stands still, which it does on a small part, the loss decides.
        reached = (validation[settings.monitor], -validation["loss"])
        if best is None or reached > best:
            best, best_epoch, kept = reached, epoch, validation
            weights = copy.deepcopy(head.state_dict())
        seconds = round(time.monotonic() - started, 3)
        log({"epoch": epoch, "train": terms, "validation": validation, "seconds": seconds})
        if epoch - best_epoch >= settings.patience:
            break
    head.load_state_dict(weights)
    logits, _ = predict(head, examples, fold.test, settings.batch_size, device)
    probabilities = logits.double().softmax(dim=1)
    on_cpu = {name: value.cpu() for name, value in weights.items()}
    return Trained(on_cpu, best_epoch, kept, probabilities, _classes(examples, logits))


def predict(
    head: Head,
    examples: Examples,
    utterances: Sequence[Utterance],
    batch_size: int,
    device: torch.device,
) -> tuple[Tensor, float]:
    """Return logits (utterances, classes) on the CPU, in the order given, and the mean loss."""
    head.eval()
    row = {one.id: at for at, one in enumerate(utterances)}
    logits = torch.empty(len(row), len(examples.corpus.classes))
    loss = 0.0
    with torch.inference_mode():
        for part in examples.in_batches(utterances, batch_size):
            batch = examples.batch(part, head.layers, device)
            output = head(batch.features, batch.lengths, batch.labels)
            logits[[row[one.id] for one in part]] = output.logits.float().cpu()
            loss += float(output.terms["cross_entropy"]) * len(part)
    return logits, loss / len(row)


def _epoch(
    head: Head,
    examples: Examples,
    utterances: Sequence[Utterance],
    settings: TrainSettings,
    optimizer: torch.optim.Optimizer,
    order: torch.Generator,
    device: torch.device,
) -> dict[str, float]:
    """Train on every utterance once; return the mean of the loss and of each of its terms."""
    head.train()
    sums: dict[str, float] = defaultdict(float)
    for part in examples.in_batches(utterances, settings.batch_size, order):
        batch = examples.batch(part, head.layers, device)
        output = head(batch.features, batch.lengths, batch.labels)
        assert output.loss is not None  # noqa: S101 -- labels were given
        optimizer.zero_grad()
        output.loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        for name, value in {"loss": output.loss.detach(), **output.terms}.items():
            sums[name] += float(value) * len(part)
    return {name: value / len(utterances) for name, value in sums.items()}


def _validate(
    head: Head,
    examples: Examples,
    utterances: Sequence[Utterance],
    settings: TrainSettings,
    device: torch.device,
) -> dict[str, float]:
    logits, loss = predict(head, examples, utterances, settings.batch_size, device)
    labels = [str(one.label) for one in utterances]
    return {**scores(labels, _classes(examples, logits)), "loss": loss}


def _classes(examples: Examples, logits: Tensor) -> list[str]:
    return [examples.corpus.classes[at] for at in logits.argmax(dim=1)]
