"""Predict all utterances of a manifest, or all clips of a folder, with the heads of a run.

The features are extracted into a cache, by the same code and with the same settings as those of the
run, so a command that was killed continues where it stopped. The heads then read them in batches.
An utterance that cannot be used has a row with the reason, and does not end the command.
"""

import csv
import io
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...cache import Entry
from ...heads import Head
from ..corpora import Corpus, Utterance
from ..corpora.clip_folder import write_clip_manifest
from ..corpora.manifest_file import read_manifest
from ..errors import UsageError
from ..evaluation.several_labels import THRESHOLD
from ..feature_cache import FeatureCache
from ..modalities import MODALITIES, modality_names
from ..option_texts import path_of
from ..output import write_output
from ..plugins import short_name
from ..progress import progress
from ..targets import Targets
from ..train.batches import BatchSampler
from ..train.features import dialogues_of
from ..train.run import Run
from ..train.run_folder import RunFolder
from ..train.settings import TrainSettings
from ..train.speaker_normalisation import require_speakers
from ..train.trainer import autocast
from .evaluate import load_weights, settings_of_run
from .new_features import NewFeatures, extract_new, has_content
from .predict import encoder_of_entry, from_metrics, head_of_run, trains_without

_EXAMPLES = 10  # problems that are printed


@dataclass(frozen=True)
class ManyPredictions:
    """The predictions of a run for many utterances, which are in the file ``out``.

    ``problems`` are the utterances without a prediction: id → reason.
    """

    out: Path
    run: Path
    head: str
    dataset: str
    classes: tuple[str, ...]
    predicted: int
    """How many utterances have a prediction."""
    counts: Mapping[str, int]
    """Class → how many utterances are predicted to be in it."""
    attributes: Mapping[str, float]
    """Attribute, such as ``valence`` → the mean of its predictions."""
    problems: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def table(self) -> Any:
        """The file as a ``pyarrow.Table``; its ``to_pandas`` needs pandas."""
        names = [f"p_{name}" for name in self.classes]
        names += [f"{of}_{name}" for name in self.attributes for of in ("true", "predicted")]
        numbers = dict.fromkeys(names, pa.float64())
        with self.out.open(encoding="utf-8", newline="") as file:
            header = next(csv.reader(file))
        types = {name: numbers.get(name, pa.string()) for name in header}
        options = arrow_csv.ConvertOptions(column_types=types, strings_can_be_null=True)
        parsing = arrow_csv.ParseOptions(newlines_in_values=True)
        return arrow_csv.read_csv(str(self.out), None, parsing, options)

    def as_json(self) -> dict[str, Any]:
        """Return the counts, the problems and the notes as JSON values."""
        return {
            "run": str(self.run),
            "head": self.head,
            "dataset": self.dataset,
            "out": str(self.out),
            "predicted": dict(self.counts),
            **({"attributes": dict(self.attributes)} if self.attributes else {}),
            "problems": dict(self.problems),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        """Return how many utterances are in each class, the means, and the first problems."""
        width = max(map(len, (*self.classes, *self.attributes)))
        lines = [
            f"{self.predicted} of {self.predicted + len(self.problems)} utterances are predicted, "
            f"by {self.head} trained on {self.dataset}",
            *(f"  note: {note}" for note in self.notes),
            *(f"  {name:{width}}{self.counts[name]:8}" for name in self.classes),
            *(f"  {name:{width}}{mean:8.3f} on average" for name, mean in self.attributes.items()),
        ]
        if self.problems:
            lines.append(f"without a prediction ({len(self.problems)}):")
            lines += [f"  {id}: {why}" for id, why in [*self.problems.items()][:_EXAMPLES]]
        if len(self.problems) > _EXAMPLES:
            lines.append(f"  and {len(self.problems) - _EXAMPLES} more: see the column problem")
        return "\n".join([*lines, f"{self.out}"])


def predict_many(
    run: str | Path | Run,
    source: str | Path,
    out: str | Path,
    *,
    encoders: Mapping[str, str | None] | None = None,
    cache: Any = None,
    device: str = "auto",
    head: str | None = None,
    features: Any = None,
    workers: int | None = None,
) -> ManyPredictions:
    """Predict many utterances with every checkpoint of a run, and write a CSV file.

    A row holds the id, the label of the manifest if it has one, the predicted class, the mean
    probability of each class over the checkpoints (``p_CLASS``), for each attribute the value of
    the manifest and the mean prediction (``true_NAME``, ``predicted_NAME``), the modalities that
    were used, and the problem if there is no prediction. If the run predicts several classes at
    once, ``predicted`` joins those of a probability of 0.5 or more by ``+``. An utterance without a
    clip, or without a text, is predicted from what it has; an utterance whose clip or text cannot
    be used is a problem. A head that reads dialogues reads those of the manifest.

    If the command is killed, the same command continues: the features are in a folder beside
    ``out``, which is deleted when ``out`` is written.

    If the run has speaker normalisation, the features are normalised by the speakers of the
    manifest.

    Args:
        run: the folder of a finished run, or the run.
        source: a manifest (``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``), or a folder of clips;
            the id of a clip is its path below the folder.
        out: the CSV file to write.
        encoders: see :func:`~mser.pipeline.runs.predict.predict`.
        cache: see there.
        device: ``auto``, ``cpu`` or ``cuda``.
        head: see there.
        features: a cache that keeps the features, for other runs with the same encoders; default: a
            folder beside ``out``, which is not kept.
        workers: processes of the extraction; default: by the machine.

    Raises:
        UsageError: it is not a finished run; the source does not exist, is ``out``, or has nothing
            that the run reads, or no speakers although the run normalises by speaker; an encoder is
            missing, or is not the one of the run.
        PipelineError: the manifest has a fault, the disk is too small, or a checkpoint is damaged.
        CacheError: the cache no longer holds the features of the run.
    """
    run, source, out = path_of(run), Path(source).expanduser(), Path(out).expanduser()
    if out.suffix.lower() != ".csv" or out.is_dir():
        raise UsageError(f"'{out}' is not the name of a table: give --out a name that ends in .csv")
    if out.exists() and source.exists() and out.samefile(source):
        raise UsageError(
            f"'{out}' is the manifest, which the predictions would replace: give --out another name"
        )
    folder = RunFolder(run)
    classes, trainings, run_notes = from_metrics(folder)
    settings, changed = settings_of_run(run, folder.config(), cache, device, head)
    targets = Targets(settings.target, classes)
    trained_on = FeatureCache(settings.cache)
    entries = {
        modality: trained_on.open(settings.train_on[0], key, modality=modality)
        for modality, key in settings.encoders.items()
    }
    module = head_of_run(settings, entries, classes, trained_on)
    beside = out.with_name(f"{out.name}.features")
    store = beside if features is None else features
    with tempfile.TemporaryDirectory() as temporary:
        manifest, others = source, list[Path]()
        if source.is_dir():
            manifest = Path(temporary) / "clips.csv"
            others = write_clip_manifest(source, manifest)
        corpus = read_manifest(manifest, _dataset_name(source))
        _require_content(run, source, corpus, settings)
        if settings.speaker_normalisation:
            require_speakers(corpus.utterances, f"'{source}'")
        given = [m for m in entries if any(has_content(u, m) for u in corpus.utterances)]
        # All encoders are checked before the first one takes hours.
        of_run = {
            m: encoder_of_entry(
                entries[m], (encoders or {}).get(m), device, _numbers(entries[m], module.layers[m])
            )
            for m in given
        }
        new = [
            extract_new(corpus, manifest, store, of_run[m], entry.spec.read_dtype, workers)
            if m in given
            else NewFeatures(m, None, _numbers(entry, module.layers[m]), entry.dim)
            for m, entry in entries.items()
        ]
    where = next(module.parameters()).device
    new = [
        of.by_speaker(store, corpus.utterances, where)
        if of.modality in settings.speaker_normalisation
        else of
        for of in new
    ]
    problems = _problems(corpus, new)
    usable = [utterance for utterance in corpus.utterances if utterance.id not in problems]
    predictions = np.zeros((len(usable), targets.n_classes + len(targets.attributes)))
    with progress(len(trainings) * len(usable), "predicting", "utterance") as bar:
        for fold, seed in trainings:
            load_weights(module, folder.checkpoint(fold, seed))
            for rows, found in _batches(module, usable, new, settings):
                predictions[rows] += found.numpy() / len(trainings)
                bar.update(len(rows))
    by_id = {u.id: row for u, row in zip(usable, predictions, strict=True)}
    write_output(out, _as_csv(corpus, targets, by_id, new, problems))
    if features is None:
        shutil.rmtree(beside / corpus.name, ignore_errors=True)
        with suppress(OSError):  # it holds something else
            beside.rmdir()
    names = classes[: targets.n_classes]
    counts = Counter(name for row in predictions for name in _chosen(targets, row))
    means = predictions[:, targets.n_classes :].mean(axis=0) if usable else []
    return ManyPredictions(
        out,
        run,
        short_name(settings.head),
        settings.dataset,
        names,
        len(usable),
        {name: counts[name] for name in names},
        dict(zip(targets.attributes, map(float, means), strict=False)),
        problems,
        (*run_notes, *changed, *_notes(module, usable, new, others)),
    )


def _dataset_name(source: Path) -> str:
    """Return the name of the new corpus in the cache of its features."""
    return f"predict-{re.sub('[^A-Za-z0-9._-]+', '-', source.resolve().stem)}"


def _numbers(entry: Entry, positions: Sequence[int]) -> tuple[int, ...]:
    """Return the encoder's numbers of layers that are given by their positions in an entry."""
    return tuple(entry.layers[position] for position in positions)


def _require_content(run: Path, source: Path, corpus: Corpus, settings: TrainSettings) -> None:
    read = [modality for modality in settings.encoders if modality in MODALITIES]
    if not any(has_content(u, modality) for modality in read for u in corpus.utterances):
        fields = modality_names(dict.fromkeys(MODALITIES[modality].source for modality in read))
        raise UsageError(f"'{source}' has no {fields}, which {run} reads: give another manifest")


def _problems(corpus: Corpus, new: Sequence[NewFeatures]) -> dict[str, str]:
    """Return id → why an utterance has no prediction."""
    problems = {}
    for utterance in corpus.utterances:
        found = [why for of in new if (why := of.problem(utterance)) is not None]
        if not found and not any(utterance.id in of for of in new):
            found = [f"it has nothing of {modality_names([of.modality for of in new])}"]
        if found:
            problems[utterance.id] = "; ".join(found)
    return problems


def _batches(
    module: Head,
    utterances: Sequence[Utterance],
    new: Sequence[NewFeatures],
    settings: TrainSettings,
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield the rows of each batch in ``utterances``, and (batch, outputs) float64 on the CPU."""
    device = next(module.parameters()).device
    row_of = {utterance.id: row for row, utterance in enumerate(utterances)}

    def length(utterance: Utterance) -> int:
        return max(of.length(utterance.id) for of in new)

    plan = BatchSampler(utterances, settings.batch_size, length, module.reads_dialogues)
    for part in plan.order():
        ids = [utterance.id for utterance in part]
        batch = {of.modality: of.padded(ids, device) for of in new}
        features = {modality: states for modality, (states, _) in batch.items()}
        lengths = {modality: counts for modality, (_, counts) in batch.items()}
        dialogues = dialogues_of(part, plan)
        more = {} if dialogues is None else {"dialogues": dialogues}
        with torch.inference_mode(), autocast(device, settings.amp):
            logits = module(features, lengths, **more).logits
        yield [row_of[id] for id in ids], module.objective.predictions(logits.float().cpu())


def _chosen(targets: Targets, row: NDArray[np.float64]) -> list[str]:
    """Return the predicted class; none without classes, perhaps several with several labels."""
    found = dict(zip(targets.classes, row[: targets.n_classes].tolist(), strict=False))
    if targets.over_classes == "labels":
        return [name for name, p in found.items() if p >= THRESHOLD]
    return [max(found, key=found.__getitem__)] if found else []


def _as_csv(
    corpus: Corpus,
    targets: Targets,
    predictions: Mapping[str, NDArray[np.float64]],
    new: Sequence[NewFeatures],
    problems: Mapping[str, str],
) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    classes = targets.classes[: targets.n_classes]
    columns = ["predicted", *(f"p_{name}" for name in classes)] if classes else []
    columns += [f"{of}_{name}" for name in targets.attributes for of in ("true", "predicted")]
    writer.writerow(["id", "label", *columns, "modalities", "problem"])
    for utterance in corpus.utterances:
        row = predictions.get(utterance.id)
        cells: list[Any] = []
        if classes:
            cells = ["+".join(_chosen(targets, row))] if row is not None else [""]
            cells += [""] * len(classes) if row is None else row[: len(classes)].tolist()
        for number, name in enumerate(targets.attributes, targets.n_classes):
            cells += [utterance.attributes.get(name), None if row is None else float(row[number])]
        used = [] if row is None else [of.modality for of in new if utterance.id in of]
        problem = problems.get(utterance.id, "")
        writer.writerow([utterance.id, utterance.label, *cells, "+".join(used), problem])
    return text.getvalue()


def _notes(
    module: Head,
    utterances: Sequence[Utterance],
    new: Sequence[NewFeatures],
    others: Sequence[Path],
) -> Iterator[str]:
    for of in new:
        count = sum(utterance.id not in of for utterance in utterances)
        if count and not trains_without(module):
            yield (
                f"{count} utterances lack {of.modality}, and the head never trained without it: "
                "expect worse results for them"
            )
    if module.reads_dialogues and all(utterance.dialogue is None for utterance in utterances):
        yield "the head reads whole dialogues; without a column dialogue, each is one utterance"
    if others:
        yield (
            f"{len(others)} other files are left out, such as '{others[0]}': they have no suffix "
            "of audio or video, or their name is not UTF-8"
        )
