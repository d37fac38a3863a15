"""Predict the target of a clip, a text, a video or several of them with a finished run.

A clip is processed as in the extraction: with the same decoding, encoder, precision, layers,
windows and rounding as the cached features on which the run was trained. Each checkpoint, of every
fold and seed, then gives probabilities of the classes, or attributes on their own scale, and the
prediction is their mean. This ensemble is a choice of mser. Of several seeds, ``metrics.json`` has
its score as ``seeds_together``: there, an utterance has only the checkpoints that did not train on
it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...cache import Entry
from ...cache.identity import identity_differences
from ...heads import Dialogues, Head
from ...heads.modules.modality_masking import ModalityMasking
from ..compute.device import chosen_device
from ..corpora import Corpus
from ..encoders import Encoder, check_recorded
from ..encoders.frame_choice import recorded_choice
from ..encoders.frame_means import means_of
from ..errors import PipelineError, UsageError
from ..evaluation.several_labels import THRESHOLD
from ..extract import load_encoder
from ..extract.audio import BadClipError, has_sound
from ..extract.faces import recorded_faces
from ..extract.readers import READERS
from ..feature_cache import FeatureCache
from ..modalities import MODALITIES, modality_names
from ..option_texts import path_of
from ..plugins import short_name
from ..targets import Targets
from ..train.examples import TrainingExamples
from ..train.jobs import build
from ..train.run import Run
from ..train.run_folder import RunFolder
from ..train.settings import TrainSettings
from ..train.speaker_normalisation import require_one_clip_is_enough
from ..train.trainer import autocast
from .encoder_source import lost_folder, source_of
from .evaluate import load_weights, settings_of_run

_BAR = 30  # characters that stand for a probability of 1


@dataclass(frozen=True)
class CheckpointPrediction:
    """The prediction of one checkpoint: class → probability, and attribute → number."""

    fold: str
    seed: int
    probabilities: dict[str, float]
    attributes: dict[str, float]

    @property
    def winner(self) -> str | None:
        """The most probable class; ``None`` if no class is predicted."""
        return max(self.probabilities, key=self.probabilities.__getitem__, default=None)


@dataclass(frozen=True)
class Prediction:
    """The prediction of a run: class → mean probability over its checkpoints, and each of theirs.

    ``modalities`` are the modalities that were given. ``attributes`` are the means of attributes,
    such as valence, that the run predicts. With ``several``, the probabilities are those of several
    classes at once, and do not sum to 1.
    """

    run: Path
    head: str
    dataset: str
    modalities: tuple[str, ...]
    probabilities: dict[str, float]
    checkpoints: tuple[CheckpointPrediction, ...]
    notes: tuple[str, ...]
    attributes: dict[str, float]
    several: bool

    @property
    def winner(self) -> str | None:
        """The most probable class; ``None`` if no class is predicted."""
        return max(self.probabilities, key=self.probabilities.__getitem__, default=None)

    @property
    def predicted(self) -> str | list[str] | None:
        """The most probable class; with ``several``, all whose probability is 0.5 or more."""
        if self.several:
            return [name for name, p in self.probabilities.items() if p >= THRESHOLD]
        return self.winner

    def as_json(self) -> dict[str, Any]:
        """Return the prediction as JSON values."""
        return {
            "run": str(self.run),
            "head": self.head,
            "dataset": self.dataset,
            "modalities": list(self.modalities),
            "predicted": self.predicted,
            "probabilities": self.probabilities,
            **({"attributes": self.attributes} if self.attributes else {}),
            "notes": list(self.notes),
            "checkpoints": [
                {"fold": each.fold, "seed": each.seed, "probabilities": each.probabilities}
                | ({"attributes": each.attributes} if each.attributes else {})
                for each in self.checkpoints
            ],
        }

    def __str__(self) -> str:
        """Return the classes, the most probable first, and the attributes."""
        count = len(self.checkpoints)
        agree = Counter(each.winner for each in self.checkpoints)[self.winner]
        width = max(map(len, (*self.probabilities, *self.attributes)))
        chosen = self.predicted
        title = ", ".join(chosen) or "no class" if isinstance(chosen, list) else chosen
        title = title or ", ".join(f"{name} {x:.3g}" for name, x in self.attributes.items())
        agreed = f", of which {agree} predict {self.winner}" if isinstance(chosen, str) else ""
        ranked = sorted(self.probabilities.items(), key=lambda item: -item[1])
        return "\n".join(
            [
                f"{title}: {self.head} trained on {self.dataset}, from "
                f"{modality_names(self.modalities, 'and')}",
                *(f"  note: {note}" for note in self.notes),
                *(
                    f"  {name:{width}}{100 * p:7.1f} %  {'#' * round(_BAR * p)}".rstrip()
                    for name, p in ranked
                ),
                *(f"  {name:{width}}{x:9.3f}" for name, x in self.attributes.items()),
                f"  mean over {count} checkpoint{'' if count == 1 else 's'}{agreed}",
            ]
        )


def predict(
    run: str | Path | Run,
    audio: str | Path | None = None,
    text: str | None = None,
    *,
    encoders: Mapping[str, str | Encoder[Any] | None] | None = None,
    cache: Any = None,
    device: str = "auto",
    head: str | None = None,
    video: str | Path | None = None,
) -> Prediction:
    """Predict one utterance with every checkpoint of a run; a modality not given is missing.

    Args:
        run: the folder of a finished run, or the run.
        audio: the clip, in any format that an extraction reads.
        text: the words spoken in the clip.
        encoders: modality → name or folder of its encoder, if it is not where the cache entry
            records it; or the encoder that :func:`encoder_of_entry` loaded for the run.
        cache: where the features of the run are now, if they have moved; their entries record how
            they were made.
        device: ``auto``, ``cpu`` or ``cuda``.
        head: see :func:`~mser.pipeline.runs.evaluate.evaluate`.
        video: the video that shows the speaker. Its sound is the clip if no ``audio`` is given.

    Raises:
        UsageError: it is not a finished run, or has speaker normalisation; neither clip, text nor
            video is given, or the run was trained without that modality; an encoder is missing, or
            is not the one of the run.
        PipelineError: the clip or the text cannot be used, or a checkpoint is damaged.
        CacheError: the cache no longer holds the features of the run.
    """
    run = path_of(run)
    audio, video = (None if path is None else Path(path) for path in (audio, video))
    if audio is not None and audio.is_dir():
        raise UsageError(f"'{audio}' is a folder: give it to predict_many")
    folder = RunFolder(run)
    classes, trainings, run_notes = from_metrics(folder)
    settings, changed = settings_of_run(run, folder.config(), cache, device, head)
    require_one_clip_is_enough(run, settings.speaker_normalisation)
    given = _given(run, {"audio": audio, "text": text, "video": video}, settings)
    features = FeatureCache(settings.cache)
    entries = {
        modality: features.open(settings.train_on[0], key, modality=modality)
        for modality, key in settings.encoders.items()
    }
    states = {
        modality: _hidden_states(
            modality, raw, entries[modality], (encoders or {}).get(modality), device
        )
        for modality, raw in given.items()
    }
    targets = Targets(settings.target, classes)
    module = head_of_run(settings, entries, classes, features)
    n_classes = targets.n_classes
    names = classes[:n_classes]
    checkpoints = []
    for fold, seed in trainings:
        load_weights(module, folder.checkpoint(fold, seed))
        row = _predicted(module, entries, states, settings).tolist()
        probabilities = dict(zip(names, row[:n_classes], strict=True))
        attributes = dict(zip(targets.attributes, row[n_classes:], strict=True))
        checkpoints.append(CheckpointPrediction(fold, seed, probabilities, attributes))
    notes = (*run_notes, *changed, *_notes(module, settings, given))
    return Prediction(
        run,
        short_name(settings.head),
        settings.dataset,
        tuple(states),
        _mean(each.probabilities for each in checkpoints),
        tuple(checkpoints),
        notes,
        _mean(each.attributes for each in checkpoints),
        targets.over_classes == "labels",
    )


def _mean(several: Iterable[Mapping[str, float]]) -> dict[str, float]:
    rows = list(several)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def from_metrics(
    folder: RunFolder,
) -> tuple[tuple[str, ...], list[tuple[str, int]], list[str]]:
    """Return the classes of a finished run, the fold and seed of its trainings, and its notes."""
    metrics = folder.read_json("metrics.json")
    try:
        trainings = [(str(fold["fold"]), int(fold["seed"])) for fold in metrics["folds"]]
        return tuple(metrics["classes"]), trainings, list(metrics["notes"])
    except (KeyError, TypeError, ValueError) as error:
        raise PipelineError(
            f"{folder.path / 'metrics.json'} is damaged ({error!r}): train the run again, with "
            "another --out"
        ) from error


def head_of_run(
    settings: TrainSettings,
    entries: Mapping[str, Entry],
    classes: tuple[str, ...],
    features: FeatureCache,
) -> Head:
    """Return the head of a run in evaluation mode, on the device, without its weights yet.

    ``entries`` and ``features`` are the features that the run was trained on.
    """
    corpus = Corpus(settings.dataset, [], classes, str(settings.protocol))
    examples = TrainingExamples(corpus, entries, (), {}, {}, features, target=settings.target)
    module = build(settings, examples)
    return module.to(chosen_device(settings.device)).eval()


def _given(run: Path, sources: Mapping[str, Any], settings: TrainSettings) -> dict[str, Any]:
    """Return the content given for each modality of a run; ``sources`` is by utterance field."""
    given = {field: raw for field, raw in sources.items() if raw is not None}
    if not given:
        options = ", ".join(f"--{modality.source}" for modality in MODALITIES.values())
        raise UsageError(f"nothing to classify is given: give one or more of {options}")
    for field in given:
        readers = [modality.name for modality in MODALITIES.values() if modality.source == field]
        if not set(readers) & set(settings.encoders):
            raise UsageError(
                f"{run} was trained without {modality_names(readers)}: leave out --{field}"
            )
    video = given.get("video")
    if video is not None and has_sound(video):
        given.setdefault("audio", video)
    known = [MODALITIES[modality] for modality in settings.encoders if modality in MODALITIES]
    return {m.name: given[m.source] for m in known if m.source in given}


def _hidden_states(
    modality: str, raw: Any, entry: Entry, name: str | Encoder[Any] | None, device: str
) -> np.ndarray[Any, Any]:
    """Return the hidden states (layers, frames, dim) as an extraction would store them."""
    encoder = name if isinstance(name, Encoder) else encoder_of_entry(entry, name, device)
    source = MODALITIES[modality].source
    name_of_input = f"'{raw}'" if isinstance(raw, Path) else f"the {source}"
    if not str(raw).strip():
        raise UsageError(f"{name_of_input} is empty: give words, or leave out --{source}")
    raw = _loaded(modality, raw, encoder)
    if not encoder.frames(raw):
        raise PipelineError(f"{name_of_input} is too short for one frame: give a longer clip")
    (states,) = encoder.encode([raw], entry.spec.read_dtype)
    if not states.shape[1]:
        raise PipelineError(f"{name_of_input} is too short for one frame: give a longer clip")
    if not np.isfinite(states).all():
        raise PipelineError(
            f"the features of {name_of_input} are not finite in {entry.spec.read_dtype}: an "
            "extraction would exclude it too"
        )
    return states


def _loaded(modality: str, source: Any, encoder: Encoder[Any]) -> Any:
    try:
        return READERS[modality].load(source, None, encoder)
    except BadClipError as error:
        kind = UsageError if error.reason == "absent" else PipelineError
        raise kind(f"'{source}' cannot be used ({error}): give another clip") from error


def encoder_of_entry(
    entry: Entry, name: str | None, device: str, layers: Sequence[int] | None = None
) -> Encoder[Any]:
    """Load the encoder of an entry, with the settings with which the entry was made.

    Args:
        entry: the features that a run was trained on.
        name: the name or folder of the encoder, if it is not where the entry records it.
        device: ``auto``, ``cpu`` or ``cuda``.
        layers: the encoder's numbers of the layers to give; default those of the entry.

    Raises:
        UsageError: the encoder is not here, or is not the one of the entry.
    """
    spec = entry.spec
    option = f"--{spec.modality}-encoder"
    if spec.identity.get("source") == "imported":
        raise UsageError(
            f"the {spec.modality} features of {spec.dataset} were imported, and mser cannot "
            "compute such features for new clips: extract them with mser and train again"
        )
    windows = spec.identity.get("window_seconds")
    frames = replace(recorded_choice(spec.identity), faces=recorded_faces(spec.identity))
    source = name or source_of(entry)
    if name is None:
        check_recorded(source, spec.identity, spec.modality, str(entry.folder))
    try:
        encoder = load_encoder(
            source,
            device=device,
            precision=spec.identity["precision"],
            layers=",".join(map(str, spec.layers if layers is None else layers)),
            modality=spec.modality,
            **({"max_seconds": windows[0]} if windows else {}),
            frames=frames,
            means=means_of(spec.identity),
        )
    except UsageError as error:
        if name is not None:
            raise
        if (folder := lost_folder(entry)) is not None:
            raise UsageError(
                f"the {spec.modality} encoder was in the folder '{folder}', which is not there: "
                f"give its folder with {option}"
            ) from error
        raise UsageError(f"{error} (or give its folder with {option})") from error
    if wrong := identity_differences(spec.identity, encoder.identity):
        raise UsageError(
            f"'{encoder.settings.files.source}' is not the {spec.modality} encoder that the run "
            f"was trained on ({'; '.join(wrong)}): give '{spec.encoder}' as it was then with "
            f"{option}"
        )
    return encoder


def _predicted(
    head: Head,
    entries: Mapping[str, Entry],
    states: Mapping[str, np.ndarray[Any, Any]],
    settings: TrainSettings,
) -> Tensor:
    """Return (outputs,) float64 on the CPU; ``states`` holds the given modalities."""
    device = next(head.parameters()).device
    features, lengths = {}, {}
    for modality, entry in entries.items():
        layers = list(head.layers[modality])
        length = states[modality].shape[1] if modality in states else 0
        if length:
            chosen = torch.from_numpy(states[modality][layers])
        else:  # one frame of padding, as in a batch
            chosen = torch.zeros(len(layers), 1, entry.dim)
        features[modality] = chosen.unsqueeze(0).to(device)
        lengths[modality] = torch.tensor([length])
    more = {"dialogues": Dialogues.alone(1)} if head.reads_dialogues else {}
    with torch.inference_mode(), autocast(device, settings.amp):
        logits = head(features, lengths, **more).logits
    return head.objective.predictions(logits.float().cpu())[0]


def trains_without(head: Head) -> bool:
    """Whether the training of a head hides modalities, so that it knows utterances without them."""
    return any(isinstance(m, ModalityMasking) and m.rate > 0 for m in head.modules())


def _notes(head: Head, settings: TrainSettings, given: Mapping[str, Any]) -> list[str]:
    notes = []
    missing = [modality for modality in settings.encoders if modality not in given]
    if missing and not trains_without(head):
        notes.append(
            f"the head never trained without {' or '.join(missing)}: expect worse results than "
            "with all modalities"
        )
    if head.reads_dialogues:
        notes.append("the head reads whole dialogues; this utterance is a dialogue by itself")
    return notes
