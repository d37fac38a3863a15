"""Short runs of stage two on the synthetic corpus, and on caches that are made by hand."""

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mser.cache import EntrySpec, FeatureCache, Quarantined, UtteranceFeatures
from mser.cache.formats.arrays import Array
from mser.pipeline.corpora import Corpus, Utterance
from mser.pipeline.corpora.manifest import to_table
from mser.pipeline.train import Run, TrainSettings
from mser.tests.support.small_heads import SMALL as SMALL_HEADS

BOTH: dict[str, str | None] = {"speech": None, "text": None}
CLASSES = ("angry", "happy", "neutral", "sad")
CONTENT = {
    "config.toml",
    "metrics.json",
    "predictions.csv",
    "folds.json",
    "log.jsonl",
    "checkpoints",
    "environment.json",
}
"""The names in the folder of a finished run."""
SMALL = {
    "linear": ["epochs=3", "optimizer=adamw"],
    "hbf": [
        "epochs=1",
        "optimizer=adamw",
        "head.width=16",
        "head.projection=8",
        "head.n_bottlenecks=2",
    ],
}


def small(head: str, cache: Path, out: Path, *more: str, **changes: Any) -> TrainSettings:
    """Settings of a short run on both modalities."""
    settings = TrainSettings(head, "synthetic", cache, BOTH, out=out, device="cpu")
    return replace(settings, **changes).with_overrides([*SMALL[head], *more])


# Made-up caches -----------------------------------------------------------------------------------


def make_utterance(id: str, **fields: Any) -> Utterance:
    """An utterance with a label that follows from its id."""
    names = ("audio", "text", "speaker", "session", "dialogue", "turn", "split")
    empty: dict[str, Any] = dict.fromkeys(names)
    label = CLASSES[int(hashlib.sha256(id.encode()).hexdigest(), 16) % 4]
    return Utterance(**{**empty, "id": id, "label": label, "dialogue": id, **fields})


def official(train: int = 24, validation: int = 8, test: int = 8) -> list[Utterance]:
    """A small corpus with splits."""
    counts = {"train": train, "validation": validation, "test": test}
    return [
        make_utterance(f"{split}/u{n:02}", split=split)
        for split, count in counts.items()
        for n in range(count)
    ]


def made_cache(
    root: Path,
    utterances: Sequence[Utterance],
    *,
    frames: Mapping[str, int] | None = None,
    extracted: Sequence[str] | None = None,
    hashes: Mapping[str, str] | None = None,
    quarantined: Sequence[Quarantined] = (),
    protocol: str = "official",
    layers: Sequence[int] = (0, 1),
    labelled_layers: Sequence[int] | None = None,
    shown: Mapping[str, str] | None = None,
    encoder: str = "small",
    dataset: str = "made-up",
    clip: str = "hash",
) -> Path:
    """Fill a cache of one modality, speech, 6 wide, with features that show the label.

    ``hashes`` are the hashes of the clips in the manifest, by default ``clip`` for each, which is
    also the hash of the content that was extracted. Only ``labelled_layers`` of the stored
    ``layers`` show the label, by default all; the others are noise. ``shown`` gives the class that
    an utterance's features show where it is not the label.
    """
    cache = FeatureCache(root)
    spec = EntrySpec(dataset, "speech", encoder, {}, tuple(layers), 6, "float32")
    shows = layers if labelled_layers is None else labelled_layers
    labelled = [layers.index(layer) for layer in shows]
    writer = cache.writer(spec, {})
    noise = np.random.default_rng(0)
    features = []
    for utterance in utterances:
        if extracted is None or utterance.id in extracted:
            length = (frames or {}).get(utterance.id, 3)
            states = noise.normal(size=(len(layers), length, 6)).astype("float32")
            label = (shown or {}).get(utterance.id, utterance.label)
            if label in CLASSES:
                states[labelled, :, CLASSES.index(label)] += 4
            features.append(UtteranceFeatures(utterance.id, clip, states))
    writer.write_shard(0, features)
    writer.quarantine(quarantined)
    corpus = Corpus(dataset, list(utterances), CLASSES, protocol)
    known = {utterance.id: clip for utterance in utterances} | dict(hashes or {})
    writer.publish(cache.write_manifest(dataset, to_table(corpus, root, known, {})))
    return root


def made_both(
    root: Path,
    utterances: Sequence[Utterance],
    *,
    shown: Mapping[str, Sequence[int]] | None = None,
    protocol: str = "official",
    without: Mapping[str, Sequence[str]] | None = None,
    class_sets: Mapping[str, Mapping[str, str]] | None = None,
    voice: Callable[[Utterance, Array], Array] = lambda _, states: states,
) -> Path:
    """Fill a cache of two modalities, speech 3 layers, 6 wide, and text 2 layers, 5 wide.

    ``shown`` gives for each modality the number that its features show for each class: by default
    the number of the class; ``(0, 0, 1, 1)`` shows only a difference between the first two classes
    and the last two. ``without`` names for each modality the utterances that have no features.
    ``voice`` changes the features of an utterance.
    """
    cache = FeatureCache(root)
    noise = np.random.default_rng(0)
    corpus = Corpus("made-up", list(utterances), CLASSES, protocol, class_sets=class_sets or {})
    manifest = to_table(corpus, root, {utterance.id: "hash" for utterance in utterances}, {})
    for modality, layers, width in (("speech", 3, 6), ("text", 2, 5)):
        spec = EntrySpec("made-up", modality, "small", {}, tuple(range(layers)), width, "float32")
        of_class = (shown or {}).get(modality, range(4))
        features = []
        for utterance in utterances:
            length = int(noise.integers(1, 9))
            states = noise.normal(size=(layers, length, width)).astype("float32")
            if utterance.label in CLASSES:
                states[:, :, of_class[CLASSES.index(utterance.label)]] += 4
            if utterance.id not in (without or {}).get(modality, ()):
                features.append(UtteranceFeatures(utterance.id, "hash", voice(utterance, states)))
        writer = cache.writer(spec, {})
        writer.write_shard(0, features)
        writer.publish(cache.write_manifest("made-up", manifest))
    return root


def made(cache: Path, out: Path, *more: str, **changes: Any) -> TrainSettings:
    """Settings of a short run on a cache that was made by hand, by epochs and not by a solver."""
    settings = TrainSettings("linear", "made-up", cache, {"speech": None}, out=out, device="cpu")
    return replace(settings, **changes).with_overrides(["epochs=4", "optimizer=adamw", *more])


def tiny(head: str, cache: Path, out: Path, *more: str, **changes: Any) -> TrainSettings:
    """Settings of a short run of any head on both modalities of a cache that was made by hand.

    The options are those with which all heads are tested; ``layer`` is no option of a training.
    """
    settings = TrainSettings(head, "made-up", cache, BOTH, out=out, device="cpu")
    options = [f"head.{k}={v}" for k, v in SMALL_HEADS[head].items() if k != "layer"]
    return replace(settings, **changes).with_overrides(
        ["epochs=3", "optimizer=adamw", "batch_size=8", *options, *more]
    )


# What a run wrote ---------------------------------------------------------------------------------


def rows(run: Run) -> list[dict[str, str]]:
    with (run.path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def log(run: Run) -> list[dict[str, Any]]:
    lines = (run.path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def timeless(run: Run) -> list[dict[str, Any]]:
    """The lines of the log without the seconds that an epoch took."""
    return [{k: v for k, v in line.items() if k != "seconds"} for line in log(run)]


def results(run: Run) -> dict[str, bytes]:
    """The bytes of what a run found, by the name of the file."""
    files = [run.path / "predictions.csv", run.path / "metrics.json"]
    files += (run.path / "checkpoints").iterdir()
    return {file.name: file.read_bytes() for file in files}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
