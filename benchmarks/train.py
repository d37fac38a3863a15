"""How fast heads are trained from the cache, beside other ways to train the same heads.

All data are **synthetic**: random float16 hidden states in the shape of wav2vec2-base and BERT-base
(768 wide), random labels. They lie in the page cache, so the disk is not measured.

* ``cache``: an epoch by mser's trainer, its batches streamed from the cache, or made of features
  that were loaded into memory, beside the least it can take: a bare loop of the same steps of the
  same head over the same batches, which lie in memory already padded.
* ``loop``: an epoch of hbf from the cache, beside the same epoch where frozen encoders (base shape,
  random weights) make the features of each batch anew, as it is done where nothing is cached.
* ``mgcma``: mgcma as its paper trains it, and in batches of 64, and from that the time of the
  paper's Table II, which is one command. On a CPU some batches are measured, on a GPU whole epochs.

Head and trainer are those of ``mser train-head``, in float32, with deterministic operations. All
ways have the same number of torch's threads. The first epoch of each is not counted.

Run it with ``python benchmarks/train.py`` or ``python -m mser.benchmarks.train``.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from mser.benchmarks.results import (
    Asked,
    Found,
    Plot,
    Rows,
    Table,
    Value,
    main,
    quartiles,
    ratios,
    turns,
)
from mser.benchmarks.train_data import IEMOCAP, MELD, make_examples
from mser.benchmarks.train_steps import InTheLoop, Training
from mser.pipeline.train import TrainSettings
from mser.pipeline.train.determinism import reproducible
from mser.pipeline.train.examples import TrainingExamples
from mser.pipeline.train.features import FeatureLoader
from mser.pipeline.train.presets import preset, read, settings_of

MODALITIES: dict[str, str | None] = {"speech": None, "text": None}
LAYERS = 13
HEADS: dict[str, dict[str, Any]] = {
    "linear": {},
    "hbf": {},
    "mgcma": {"width": 256, "n_attention_heads": 4, "n_blocks": 2},
}
BY_HAND, STREAMED, LOADED, LOOP = (
    "bare loop, padded batches in memory",
    "mser, streamed",
    "mser, in memory",
    "encoders in the loop",
)
MELD_TRAIN, IEMOCAP_ALL, FOLDS = 9989, 5531, 5
EPOCH = f"minutes an epoch of {IEMOCAP_ALL}, extrapolated from these"
TRAIN_SHARE = 0.8 * 0.85  # of IEMOCAP: four sessions of five, less the validation part
ABLATION = "mgcma-table2"

CACHE_NOTE = (
    f"Synthetic utterances of 0.5 to 15 s, 3 s in the mean, of which {LAYERS} layers are cached. "
    "linear and mgcma (here 256 wide, 2 blocks) read all, hbf three. The bare loop finds its "
    "batches padded in memory, which no training that begins with a cache can: it is the least "
    "that there can be. Before anything is timed, the mean loss of an epoch must be the same for "
    "all three."
)
LOOP_NOTE = (
    "The same synthetic utterances in batches of like length. In favour of the encoders in the "
    "loop: waves are decoded and texts tokenised beforehand, and they need not be deterministic. "
    "In favour of the cache: its extraction is not counted, which costs about what one epoch in "
    "the loop does, once. Batches of both have the same labels, lengths and shapes; the numbers in "
    "them differ, and change no speed."
)
PAPER_NOTE = (
    "The settings of the paper (768 wide, 6 blocks, 12 heads, the last layer) on synthetic "
    "utterances of 4.5 s in the mean. Where fewer are measured than an epoch has, the epoch is "
    "extrapolated from them."
)
TABLE2_NOTE = (
    "Extrapolated from the table before: all systems on five folds, each trained on 68 % of the "
    "utterances for so many epochs, fewer where the patience ends a training. What was not "
    "measured counts as the first system, which has everything. Scoring the validation part after "
    "each epoch is not in it."
)

Epoch = Callable[[], float]  # trains, and returns the mean loss


class Sizes(NamedTuple):
    """How many utterances are in an epoch that is measured, and in a batch of it."""

    cached: int
    looped: int
    batch: int
    mgcma: dict[int, int]  # batch size → utterances
    systems: int | None = None  # of Table II; all by default


SMALL = Sizes(16, 8, 4, {4: 4}, 1)
ON_CPU = Sizes(320, 96, 32, {4: 32, 64: 64})
ON_GPU = Sizes(1280, 640, 32, {4: IEMOCAP_ALL, 64: IEMOCAP_ALL})


def compare(
    epochs: Mapping[str, Epoch], rounds: int, device: torch.device, same: bool = True
) -> dict[str, list[float]]:
    """Seconds of each epoch in each round; in each round all take their turn in another order.

    All must have the ``same`` loss, unless they train on other numbers.
    """
    losses = {name: epoch() for name, epoch in epochs.items()}  # which also warms all up
    first = next(iter(losses.values()))
    assert not same or all(abs(one - first) < 1e-3 * abs(first) for one in losses.values()), losses
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for _, name in turns([*epochs], rounds):
        seconds[name].append(timed(epochs[name], device))
    return seconds


def timed(epoch: Epoch, device: torch.device) -> float:
    """Seconds that an epoch takes, with all that it asked of a GPU."""
    _wait(device)
    begin = time.perf_counter()
    epoch()
    _wait(device)
    return time.perf_counter() - begin


def cache(folder: Path, sizes: Sizes, rounds: int, device: torch.device) -> list[Table]:
    examples = make_examples(folder, sizes.cached, MELD, LAYERS)
    return [
        Table(
            f"cache: an epoch of {name} (synthetic)",
            _cached(_settings(name, options, sizes, device), examples, rounds, device),
            CACHE_NOTE,
            Plot(f"× {BY_HAND}"),
        )
        for name, options in HEADS.items()
    ]


def _cached(
    settings: TrainSettings, examples: TrainingExamples, rounds: int, device: torch.device
) -> Rows:
    """One head, begun anew for each way to train it; all see the same batches in the same order."""
    trainings = {one: Training(settings, examples, device) for one in (BY_HAND, STREAMED, LOADED)}
    streamed, loaded = (
        FeatureLoader(examples, trainings[BY_HAND].layers, device, keep)
        for keep in ("stream", "memory")
    )
    by_hand = trainings[BY_HAND]
    held = by_hand.batches(streamed)
    epochs = {
        BY_HAND: lambda: by_hand.epoch_by_hand(held),
        STREAMED: lambda: trainings[STREAMED].epoch(streamed),
        LOADED: lambda: trainings[LOADED].epoch(loaded),
    }
    seconds = compare(epochs, rounds, device)
    return {
        name: {
            "s an epoch": quartiles(values),
            "ms an utterance": 1e3 * median(values) / len(examples.utterances),
            f"× {BY_HAND}": ratios(values, seconds[BY_HAND]),
        }
        for name, values in seconds.items()
    }


def loop(folder: Path, sizes: Sizes, rounds: int, device: torch.device) -> list[Table]:
    examples = make_examples(folder, sizes.looped, MELD, LAYERS)
    settings = _settings("hbf", {}, sizes, device)
    cached, looped = (Training(settings, examples, device) for _ in range(2))
    streamed = FeatureLoader(examples, cached.layers, device, "stream")
    encoders = InTheLoop(examples, looped.layers, device)
    epochs = {STREAMED: lambda: cached.epoch(streamed), LOOP: lambda: looped.epoch(encoders)}
    seconds = compare(epochs, rounds, device, same=False)
    rows: Rows = {
        name: {
            "s an utterance": quartiles([one / sizes.looped for one in values]),
            f"minutes for MELD's {MELD_TRAIN}, extrapolated": median(values)
            / sizes.looped
            * MELD_TRAIN
            / 60,
            f"× {STREAMED}": ratios(values, seconds[STREAMED]),
        }
        for name, values in seconds.items()
    }
    plot = Plot("s an utterance", log=True)
    return [Table("loop: an epoch of hbf (synthetic)", rows, LOOP_NOTE, plot)]


def mgcma(folder: Path, sizes: Sizes, rounds: int, device: torch.device) -> list[Table]:
    examples = make_examples(folder, max(sizes.mgcma.values()), IEMOCAP, layers=1)
    ablation = read(ABLATION, "ablations")
    rows: Rows = {}
    for batch, count in sizes.mgcma.items():
        for system in ablation["systems"][: sizes.systems if batch == 4 else 1]:
            values = {**preset(ablation["preset"]), **system["set"], "batch_size": batch}
            settings = settings_of(values, cache=folder, encoders=MODALITIES, device=device.type)
            name = f"{system['name']}, batches of {batch}"
            rows[name] = _paper(settings, examples, count, rounds, device)
    paper, all_of_it = (
        "mgcma: the paper's settings (synthetic)",
        f"mgcma: mser ablate --preset {ABLATION} (synthetic)",
    )
    return [
        Table(paper, rows, PAPER_NOTE, Plot("s a batch", log=True)),
        Table(all_of_it, _table2(rows), TABLE2_NOTE, Plot("hours of training, estimated")),
    ]


def _paper(
    settings: TrainSettings,
    examples: TrainingExamples,
    count: int,
    rounds: int,
    device: torch.device,
) -> dict[str, Value]:
    """Train on the first ``count`` utterances; say how long an epoch of IEMOCAP's size takes."""
    training = Training(settings, examples, device)
    features = FeatureLoader(examples, training.layers, device, "stream")
    some = examples.utterances[:count]
    training.epoch(features, some[: settings.batch_size])  # warms up
    seconds = [timed(lambda: training.epoch(features, some), device) for _ in range(rounds)]
    batches = -(-count // settings.batch_size)
    return {
        "batches measured": batches,
        "s a batch": quartiles([one / batches for one in seconds]),
        EPOCH: quartiles([one / count * IEMOCAP_ALL / 60 for one in seconds]),
    }


def _table2(rows: Mapping[str, Mapping[str, Any]]) -> Rows:
    """Hours of Table II; what was not measured counts as S0, the slowest, that has everything."""
    minutes = [row[EPOCH][0] for name, row in rows.items() if name.endswith("batches of 4")]
    systems = len(read(ABLATION, "ablations")["systems"])
    epoch = sum(minutes) + (systems - len(minutes)) * minutes[0]
    most = preset("mgcma-iemocap")["epochs"]
    return {
        f"{systems} systems × {FOLDS} folds × {epochs} epochs": {
            "hours of training, estimated": epoch * FOLDS * epochs * TRAIN_SHARE / 60,
            "systems measured": len(minutes),
        }
        for epochs in (10, most)
    }


def measure(asked: Asked) -> Found:
    on_gpu = asked.device.type == "cuda"
    sizes = SMALL if asked.small else ON_GPU if on_gpu else ON_CPU
    tables: list[Table] = []
    with reproducible():
        for section in SECTIONS:
            if asked.wants(section.__name__):
                asked.say(f"{section.__name__} ...")
                with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
                    tables += section(Path(folder), sizes, asked.rounds, asked.device)
    said = {
        "utterances of cache": sizes.cached,
        "of loop": sizes.looped,
        "in batches of": sizes.batch,
        "of mgcma": " and ".join(f"{n} in batches of {b}" for b, n in sizes.mgcma.items()),
    }
    return Found(tables, said)


def _settings(
    head: str, options: Mapping[str, Any], sizes: Sizes, device: torch.device
) -> TrainSettings:
    return TrainSettings(
        head,
        "synthetic",
        "",
        MODALITIES,
        device=device.type,
        batch_size=sizes.batch,
        head_options=options,
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


SECTIONS = (cache, loop, mgcma)

if __name__ == "__main__":
    names = [section.__name__ for section in SECTIONS]
    main("train", __doc__.partition("\n")[0], measure, (5, 2), names)
