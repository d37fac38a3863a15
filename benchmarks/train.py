"""How fast heads are trained from the cache, compared with other ways to train the same heads.

All data are **synthetic**: random float16 hidden states in the shape of wav2vec2-base and BERT-base
(768 wide), random labels. They are in the page cache, so the disk is not measured.

* ``cache``: an epoch by mser's trainer, with features streamed from the cache or loaded into memory
  before, compared with the shortest possible time: a bare loop of the same steps of the same head
  over the same batches, which are in memory and already padded.
* ``loop``: an epoch of hbf from the cache, compared with the same epoch where frozen encoders (base
  shape, random weights) compute the features of each batch anew, as without a cache.
* ``mgcma``: mgcma with the settings of its paper, and with batches of 64; from these, an estimate
  of the time of the paper's Table II, which is one command. On a CPU some batches are measured, on
  a GPU whole epochs.

Head and trainer are those of ``mser train-head``, in float32, with deterministic operations. All
use the same number of PyTorch threads. The first epoch of each is not timed.

Run it with ``python benchmarks/train.py`` or ``python -m mser.benchmarks.train``.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from mser.benchmarks.results import (
    Measurement,
    Plot,
    Rows,
    RunOptions,
    Table,
    Value,
    main,
    quartiles,
    ratios,
    shuffled_turns,
)
from mser.benchmarks.train_data import IEMOCAP, MELD, make_examples
from mser.benchmarks.train_steps import EncodersInLoop, Training
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
BARE_LOOP, STREAMED, LOADED, POOLED, ENCODERS_IN_LOOP = (
    "bare loop, padded batches in memory",
    "mser, streamed",
    "mser, in memory",
    "mser, pooled",
    "encoders in the loop",
)
MELD_TRAIN, IEMOCAP_ALL, FOLDS = 9989, 5531, 5
EPOCH = f"minutes per epoch of {IEMOCAP_ALL} utterances, extrapolated"
TRAIN_SHARE = 0.8 * 0.85  # of IEMOCAP: four of five sessions, without the validation part
ABLATION = "mgcma-table2"

CACHE_NOTE = (
    f"Synthetic utterances of 0.5 to 15 s, 3 s on average, with {LAYERS} cached layers. linear and "
    "mgcma (here 256 wide, 2 blocks) read all layers, hbf three. The batches of the bare loop are "
    "in memory and already padded, which no training from a cache can have: its time is the "
    "shortest possible for a head that reads frames. linear reads means and deviations, which are "
    "pooled once for the cache; AdamW trains it here, as the others. Before anything is timed, the "
    "mean loss of an epoch must be the same for all ways."
)
LOOP_NOTE = (
    "The same synthetic utterances in batches of similar length. An advantage of the encoders in "
    "the loop: waves are decoded and texts tokenised before, and the encoders need not be "
    "deterministic. An advantage of the cache: its extraction is not counted; it costs about as "
    "much as one epoch in the loop, once. The batches of both have the same labels, lengths and "
    "shapes; their numbers differ, which changes no speed."
)
PAPER_NOTE = (
    "The settings of the paper (768 wide, 6 blocks, 12 heads, the last layer) on synthetic "
    "utterances of 4.5 s on average. If fewer utterances are measured than an epoch has, the time "
    "of the epoch is extrapolated."
)
TABLE2_NOTE = (
    "Extrapolated from the table above: all systems on five folds, each trained on 68 % of the "
    "utterances for so many epochs; early stopping makes some trainings shorter. A system that was "
    "not measured counts as the first system, which has all modules. Scoring the validation part "
    "after each epoch is not included."
)

Epoch = Callable[[], float]  # trains an epoch and returns the mean loss


class Sizes(NamedTuple):
    """The number of utterances in a measured epoch, and in its batches."""

    cached: int  # in an epoch of the section `cache`
    looped: int  # in an epoch of the section `loop`
    batch: int  # in a batch of both
    mgcma: dict[int, int]  # in the section `mgcma`: batch size → utterances
    systems: int | None = None  # of Table II; None measures all


SMALL = Sizes(16, 8, 4, {4: 4}, 1)
ON_CPU = Sizes(320, 96, 32, {4: 32, 64: 64})
ON_GPU = Sizes(1280, 640, 32, {4: IEMOCAP_ALL, 64: IEMOCAP_ALL})


def compare(
    epochs: Mapping[str, Epoch], rounds: int, device: torch.device, same_loss: bool = True
) -> dict[str, list[float]]:
    """Return the seconds of each epoch in each round; each round has another order.

    Args:
        epochs: name → epoch.
        rounds: how often each is timed.
        device: where the head is trained.
        same_loss: check that all epochs have the same loss.
    """
    losses = {name: epoch() for name, epoch in epochs.items()}  # this also warms up everything
    first = next(iter(losses.values()))
    assert not same_loss or all(
        abs(loss - first) < 1e-3 * abs(first) for loss in losses.values()
    ), losses
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for _, name in shuffled_turns([*epochs], rounds):
        seconds[name].append(timed(epochs[name], device))
    return seconds


def timed(epoch: Epoch, device: torch.device) -> float:
    """Return the seconds that an epoch takes, with all work on the GPU."""
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
            Plot(f"seconds ÷ {BARE_LOOP}"),
        )
        for name, options in HEADS.items()
    ]


def _cached(
    settings: TrainSettings, examples: TrainingExamples, rounds: int, device: torch.device
) -> Rows:
    """Train one head in each way from the same start, on the same batches in the same order."""
    bare = Training(settings, examples, device)
    head = bare.state.head
    ways = {STREAMED: "stream", LOADED: "memory"}
    loaders = {
        name: FeatureLoader(examples, bare.layers, device, mode) for name, mode in ways.items()
    }
    padded = bare.batches(loaders[STREAMED])
    if head.reads_pooled:
        pooled = FeatureLoader(examples, bare.layers, device, pooled=head.widths)
        loaders = {POOLED: pooled}
    epochs: dict[str, Epoch] = {BARE_LOOP: lambda: bare.bare_epoch(padded)}
    for name, loader in loaders.items():
        epochs[name] = partial(Training(settings, examples, device).epoch, loader)
    seconds = compare(epochs, rounds, device)
    return {
        name: {
            "s per epoch": quartiles(values),
            "ms per utterance": 1e3 * median(values) / len(examples.utterances),
            f"seconds ÷ {BARE_LOOP}": ratios(values, seconds[BARE_LOOP]),
        }
        for name, values in seconds.items()
    }


def loop(folder: Path, sizes: Sizes, rounds: int, device: torch.device) -> list[Table]:
    examples = make_examples(folder, sizes.looped, MELD, LAYERS)
    settings = _settings("hbf", {}, sizes, device)
    cached, looped = (Training(settings, examples, device) for _ in range(2))
    streamed = FeatureLoader(examples, cached.layers, device, "stream")
    encoders = EncodersInLoop(examples, looped.layers, device)
    epochs = {
        STREAMED: lambda: cached.epoch(streamed),
        ENCODERS_IN_LOOP: lambda: looped.epoch(encoders),
    }
    seconds = compare(epochs, rounds, device, same_loss=False)  # their features differ
    meld = f"minutes per epoch of MELD's {MELD_TRAIN} utterances, extrapolated"
    rows: Rows = {
        name: {
            "s per utterance": quartiles([value / sizes.looped for value in values]),
            meld: median(values) / sizes.looped * MELD_TRAIN / 60,
            f"seconds ÷ {STREAMED}": ratios(values, seconds[STREAMED]),
        }
        for name, values in seconds.items()
    }
    plot = Plot("s per utterance", log=True)
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
            rows[name] = _paper_settings(settings, examples, count, rounds, device)
    batches = "mgcma: the paper's settings (synthetic)"
    table2 = f"mgcma: mser ablate --preset {ABLATION} (synthetic)"
    return [
        Table(batches, rows, PAPER_NOTE, Plot("s per batch", log=True)),
        Table(table2, estimate_table2(rows), TABLE2_NOTE, Plot("hours of training, estimated")),
    ]


def _paper_settings(
    settings: TrainSettings,
    examples: TrainingExamples,
    count: int,
    rounds: int,
    device: torch.device,
) -> dict[str, Value]:
    """Train on the first ``count`` utterances; extrapolate the time of an epoch of IEMOCAP."""
    training = Training(settings, examples, device)
    features = FeatureLoader(examples, training.layers, device, "stream")
    utterances = examples.utterances[:count]
    training.epoch(features, utterances[: settings.batch_size])  # warms up
    seconds = [timed(lambda: training.epoch(features, utterances), device) for _ in range(rounds)]
    batches = -(-count // settings.batch_size)
    return {
        "batches measured": batches,
        "s per batch": quartiles([value / batches for value in seconds]),
        EPOCH: quartiles([value / count * IEMOCAP_ALL / 60 for value in seconds]),
    }


def estimate_table2(rows: Mapping[str, Mapping[str, Any]]) -> Rows:
    """Return the hours of Table II; a system that was not measured counts as S0, the slowest."""
    minutes = [row[EPOCH][0] for name, row in rows.items() if name.endswith("batches of 4")]
    systems = len(read(ABLATION, "ablations")["systems"])
    epoch = sum(minutes) + (systems - len(minutes)) * minutes[0]
    max_epochs = preset("mgcma-iemocap")["epochs"]
    return {
        f"{systems} systems × {FOLDS} folds × {epochs} epochs": {
            "hours of training, estimated": epoch * FOLDS * epochs * TRAIN_SHARE / 60,
            "systems measured": len(minutes),
        }
        for epochs in (10, max_epochs)
    }


def measure(options: RunOptions) -> Measurement:
    on_gpu = options.device.type == "cuda"
    sizes = SMALL if options.small else ON_GPU if on_gpu else ON_CPU
    tables: list[Table] = []
    with reproducible():
        for section in SECTIONS:
            if options.includes(section.__name__):
                options.log(f"{section.__name__} ...")
                with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                    tables += section(Path(folder), sizes, options.rounds, options.device)
    mgcma_sizes = [f"{count} in batches of {batch}" for batch, count in sizes.mgcma.items()]
    settings = {
        "cache: utterances": sizes.cached,
        "loop: utterances": sizes.looped,
        "batch size": sizes.batch,
        "mgcma: utterances": " and ".join(mgcma_sizes),
    }
    return Measurement(tables, settings)


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
