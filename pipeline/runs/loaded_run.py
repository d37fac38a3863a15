"""A finished run in Python: its scores, its trained modules, predictions and vectors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...heads import Head
from ..corpora import Utterance
from ..errors import UsageError, unknown
from ..evaluation.prediction_columns import header as columns_of
from ..option_texts import path_of
from ..protocols.folds import PARTS
from ..targets import Targets
from ..train.batches import BatchSampler
from ..train.context import context_turns
from ..train.determinism import reproducible
from ..train.jobs import build, examples_of, trainer_of
from ..train.run import Run, targets_in
from ..train.run_folder import RunFolder
from ..train.runner import train_head as train
from ..train.settings import TrainSettings
from .evaluate import load_weights, settings_of_run
from .predict import Prediction, predict
from .predict_many import ManyPredictions, predict_many


@dataclass(frozen=True)
class LoadedRun(Run):
    """A finished run: its folder, its ``metrics`` (the content of ``metrics.json``) and its heads.

    If the head is of a plug-in whose code has moved or changed, or was not used here before, give
    it as ``head`` to the methods that run it.
    """

    def __repr__(self) -> str:
        """Return the head, the dataset, the protocol and the folder."""
        metrics = self.metrics
        trainings = len(metrics["folds"])
        return (
            f"<run {self.path}: {metrics['head']} on {metrics['dataset']}, {metrics['protocol']}, "
            f"{trainings} training{'' if trainings == 1 else 's'}>"
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of the outputs; none if the run predicts only attributes."""
        return tuple(self.metrics["classes"])

    @property
    def targets(self) -> Targets:
        """What the run predicts."""
        return targets_in(self.metrics)

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Counts (classes, classes) over all folds and seeds: a row per label, a column per class.

        The order is that of :attr:`classes`.

        Raises:
            UsageError: the run does not predict one class.
        """
        if "confusion" not in self.metrics["pooled"]:
            raise UsageError(f"{self.path} predicts {self.targets}, which has no confusion matrix")
        return np.array(self.metrics["pooled"]["confusion"], dtype=np.int64)

    @property
    def predictions(self) -> Any:
        """``predictions.csv`` as a ``pyarrow.Table``; its ``to_pandas`` needs pandas.

        The columns are ``id``, ``label``, ``predicted``, ``p_CLASS`` for each class, ``fold``,
        ``seed``, ``speaker``, ``session`` and ``dialogue``; those of another target than
        ``emotion`` are in :mod:`~mser.pipeline.evaluation.prediction_columns`.
        """
        path = self.path / "predictions.csv"
        texts = ("label", "predicted")
        columns = [name for name in columns_of(self.targets) if name not in texts]
        numbers = {name: pa.float64() for name in columns} | {"seed": pa.int64()}
        with path.open("rb") as file:
            header = file.readline().decode().strip().split(",")
        types = {name: numbers.get(name, pa.string()) for name in header}
        options = arrow_csv.ConvertOptions(
            column_types=types, null_values=[""], strings_can_be_null=True
        )
        return arrow_csv.read_csv(
            str(path), arrow_csv.ReadOptions(use_threads=False), convert_options=options
        )

    @property
    def folds(self) -> tuple[str, ...]:
        """The names of the folds that are trained."""
        return tuple(dict.fromkeys(fold["fold"] for fold in self.metrics["folds"]))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that are trained."""
        return tuple(dict.fromkeys(fold["seed"] for fold in self.metrics["folds"]))

    def module(
        self,
        fold: str | None = None,
        seed: int | None = None,
        *,
        cache: Any = None,
        device: str = "auto",
        head: str | None = None,
    ) -> Head:
        """Return a trained head, in evaluation mode.

        Args:
            fold: the fold that it was trained on; default the first.
            seed: its seed; default the first.
            cache: where the features are now, if they have moved.
            device: ``auto``, ``cpu`` or ``cuda``.
            head: see the class.

        Raises:
            UsageError: there is no such fold or seed, or ``head`` must be given.
            PipelineError: the checkpoint is damaged.
            CacheError: the cache does not hold the features.
        """
        return self._trained(fold, seed, cache, device, head)[0]

    def predict(
        self, audio: str | Path | None = None, text: str | None = None, **options: Any
    ) -> Prediction:
        """Classify an utterance; see :func:`mser.predict` for the options, such as ``video``."""
        return predict(self.path, audio, text, **options)

    def predict_many(self, source: str | Path, out: str | Path, **options: Any) -> ManyPredictions:
        """Classify a manifest or a folder of clips; see :func:`mser.predict_many` for the options.

        The ``table`` of the result holds the rows of the CSV file ``out``.
        """
        return predict_many(self.path, source, out, **options)

    def embed(
        self,
        ids: Iterable[str] | None = None,
        *,
        fold: str | None = None,
        seed: int | None = None,
        cache: Any = None,
        device: str = "auto",
        head: str | None = None,
    ) -> tuple[list[str], NDArray[np.float32]]:
        """Return a vector for each utterance: the input of the layer that gives the logits.

        Args:
            ids: utterances of the run, of any part of the fold; default its test part.
            fold: the fold whose head is used; default the first.
            seed: its seed; default the first.
            cache: see :meth:`module`.
            device: see :meth:`module`.
            head: see the class.

        Returns:
            The ids, and (utterances, width) float32 in the same order.

        Raises:
            UsageError: as :meth:`module`; an utterance is not in the fold, or the logits of the
                head are not those of one linear layer.
            PipelineError, CacheError: as :meth:`module`.
        """
        module, settings = self._trained(fold, seed, cache, device, head)
        examples = examples_of(settings)
        folds = {each.name: each for each in RunFolder(self.path).folds(examples)}
        chosen = folds[fold or self.folds[0]]
        part_of = {utterance.id: part for part in PARTS for utterance in chosen.part(part)}
        wanted = [utterance.id for utterance in chosen.test] if ids is None else [*ids]
        if foreign := [id for id in wanted if id not in part_of]:
            raise UsageError(f"'{foreign[0]}' is not an utterance of fold '{chosen.name}'")
        trainer = trainer_of(settings, examples)
        vectors: dict[str, NDArray[np.float32]] = {}
        for part in dict.fromkeys(part_of[id] for id in wanted):
            context = context_turns(chosen, part, examples.context)
            utterances = chosen.part(part)
            features = trainer.features(module)
            with reproducible(), _Inputs(module) as inputs:
                logits = trainer.predict(module, features, utterances, context=context)
            plan = BatchSampler(
                utterances,
                settings.batch_size,
                examples.length,
                module.reads_dialogues,
                context,
                examples.place,
            )
            ids_of_rows = [utterance.id for utterance in utterances]
            vectors |= inputs.rows(plan.order(), dict(zip(ids_of_rows, logits, strict=True)))
        return wanted, np.stack([vectors[id] for id in wanted])

    def _trained(
        self, fold: str | None, seed: int | None, cache: Any, device: str, head: str | None
    ) -> tuple[Head, TrainSettings]:
        name = self.folds[0] if fold is None else fold
        number = self.seeds[0] if seed is None else seed
        if name not in self.folds:
            raise unknown("fold of this run", name, self.folds)
        if number not in self.seeds:
            raise unknown("seed of this run", str(number), map(str, self.seeds))
        folder = RunFolder(self.path)
        settings, _ = settings_of_run(self.path, folder.config(), cache, device, head)
        examples = examples_of(settings)
        module = build(settings, examples).to(trainer_of(settings, examples).device)
        load_weights(module, folder.checkpoint(name, number))
        return module.eval(), settings


def load_run(run: str | Path | Run) -> LoadedRun:
    """Return a finished run.

    Raises:
        UsageError: it is not the folder of a finished run.
    """
    path = path_of(run)
    folder = RunFolder(path)
    folder.config()
    metrics = folder.read_json("metrics.json")
    return LoadedRun(path, metrics, tuple(metrics["notes"]))


def train_head(settings: TrainSettings) -> LoadedRun:
    """Train a head by a protocol on features in the cache, and return the finished run.

    An interrupted run continues; a finished one is only read.

    Raises:
        UsageError: the head, an option, the protocol or the device does not exist.
        CacheError: the cache does not hold the features.
        PipelineError: a part of a fold is empty or leaks into another.
    """
    return load_run(train(settings))


class _Inputs:
    """The inputs and outputs of the linear layers of a head that may give its logits."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.calls: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}
        self.handles: list[Any] = []

    def __enter__(self) -> "_Inputs":
        for module in self.head.modules():
            if isinstance(module, nn.Linear) and module.out_features == self.head.n_classes:
                self.handles.append(module.register_forward_hook(self._keep))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def rows(
        self, order: Sequence[Sequence[Utterance]], logits: Mapping[str, Tensor]
    ) -> dict[str, NDArray[np.float32]]:
        """Return id → the input of the layer whose outputs are the ``logits`` of the utterances.

        ``order`` are the batches in which the head has read them.

        Raises:
            UsageError: there is no such layer.
        """
        for calls in self.calls.values():
            rows = {
                utterance.id: (given, result)
                for batch, (inputs, outputs) in zip(order, calls, strict=False)
                if len(batch) == len(inputs)
                for utterance, given, result in zip(batch, inputs, outputs, strict=True)
            }
            if len(calls) == len(order) and all(
                id in rows and torch.equal(rows[id][1], logits[id]) for id in logits
            ):
                return {id: rows[id][0].numpy() for id in logits}
        raise UsageError(
            "the logits of this head are not those of one linear layer: use run.module() and its "
            "own layers"
        )

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        call = inputs[0].float().cpu(), output.float().cpu()
        self.calls.setdefault(module, []).append(call)
