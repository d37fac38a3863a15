"""How fast heads are trained from the cache, beside other ways to train the same heads.

All data are **synthetic**: random float16 hidden states in the shape of wav2vec2-base and BERT-base
(768 wide), random labels. They lie in the page cache, so the disk is not measured.

* ``cache``: an epoch by mser's trainer, its batches streamed from the cache, or made of features
  that were loaded into memory, beside the least it can take: a bare loop of the same steps of the
  same head over the same batches, which lie in memory already padded. 13 layers are cached, of
  which each head reads its own; utterances as long as MELD's.
* ``loop``: an epoch of hbf from the cache, beside the same epoch where frozen encoders (base shape,
  random weights) make the features of each batch anew, as it is done where nothing is cached.
* ``mgcma``: mgcma as its paper trains it, and in batches of 64, on utterances as long as IEMOCAP's,
  and from that the time of the paper's Table II, which is one command. On a CPU some batches are
  measured, on a GPU whole epochs.

Head and trainer are those of ``mser train-head``, in float32, with deterministic operations. Both
sides have the same number of threads. The first epoch of each is not counted.

Run it with ``python benchmarks/train.py`` or ``python -m mser.benchmarks.train``.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

from mser.benchmarks.processes import Result, quartiles
from mser.benchmarks.read import table
from mser.benchmarks.train_data import IEMOCAP, MELD, make_examples
from mser.benchmarks.train_steps import InTheLoop, Training
from mser.pipeline.device import chosen_device, cores
from mser.pipeline.train import TrainSettings
from mser.pipeline.train.examples import Examples
from mser.pipeline.train.features import Features
from mser.pipeline.train.presets import preset, read, settings_of
from mser.pipeline.train.reproducible import reproducible

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


def compare(epochs: Mapping[str, Epoch], rounds: int, device: torch.device) -> dict[str, Any]:
    """Seconds of each epoch in each round; in each round all take their turn in another order."""
    losses = {name: epoch() for name, epoch in epochs.items()}  # which also warms all up
    first = next(iter(losses.values()))
    assert all(abs(loss - first) < 1e-3 * abs(first) for loss in losses.values()), losses
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for number in range(rounds):
        for at in np.random.default_rng(number).permutation(len(epochs)):
            name = list(epochs)[at]
            seconds[name].append(timed(epochs[name], device))
    return seconds


def timed(epoch: Epoch, device: torch.device) -> float:
    """Seconds that an epoch takes, with all that it asked of a GPU."""
    _wait(device)
    begin = time.perf_counter()
    epoch()
    _wait(device)
    return time.perf_counter() - begin


def cache(folder: Path, sizes: Sizes, rounds: int, device: torch.device) -> Result:
    examples = make_examples(folder, sizes.cached, MELD, LAYERS)
    return {
        name: _cached(_settings(name, options, sizes, device), examples, rounds, device)
        for name, options in HEADS.items()
    }


def _cached(
    settings: TrainSettings, examples: Examples, rounds: int, device: torch.device
) -> Result:
    """One head, begun anew for each way to train it; all see the same batches in the same order."""
    trainings = {one: Training(settings, examples, device) for one in (BY_HAND, STREAMED, LOADED)}
    streamed, loaded = (
        Features(examples, trainings[BY_HAND].layers, device, keep) for keep in ("stream", "memory")
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
            f"× {BY_HAND}": quartiles(_ratios(values, seconds[BY_HAND])),
        }
        for name, values in seconds.items()
    }


def loop(folder: Path, sizes: Sizes, rounds: int, device: torch.device) -> Result:
    examples = make_examples(folder, sizes.looped, MELD, LAYERS)
    settings = _settings("hbf", {}, sizes, device)
    cached, looped = (Training(settings, examples, device) for _ in range(2))
    streamed = Features(examples, cached.layers, device, "stream")
    encoders = InTheLoop(examples, looped.layers, device)
    cached.epoch(streamed)
    looped.epoch(encoders)
    seconds: dict[str, list[float]] = {STREAMED: [], LOOP: []}
    for _ in range(rounds):
        seconds[STREAMED].append(timed(lambda: cached.epoch(streamed), device))
        seconds[LOOP].append(timed(lambda: looped.epoch(encoders), device))
    each = {name: [one / sizes.looped for one in values] for name, values in seconds.items()}
    rows = {
        name: {
            "s an utterance": quartiles(values),
            f"minutes for MELD's {MELD_TRAIN}, extrapolated": median(values) * MELD_TRAIN / 60,
            f"× {STREAMED}": quartiles(_ratios(values, each[STREAMED])),
        }
        for name, values in each.items()
    }
    return {f"hbf, {sizes.looped} utterances in batches of {sizes.batch}": rows}


def mgcma(folder: Path, sizes: Sizes, rounds: int, device: torch.device) -> Result:
    examples = make_examples(folder, max(sizes.mgcma.values()), IEMOCAP, layers=1)
    ablation = read(ABLATION, "ablations")
    rows: Result = {}
    for batch, count in sizes.mgcma.items():
        for system in ablation["systems"][: sizes.systems if batch == 4 else 1]:
            values = {**preset(ablation["preset"]), **system["set"], "batch_size": batch}
            settings = settings_of(values, cache=folder, encoders=MODALITIES, device=device.type)
            name = f"{system['name']}, batches of {batch}"
            rows[name] = _paper(settings, examples, count, rounds, device)
    return {"the paper's settings": rows, f"mser ablate --preset {ABLATION}": _table2(rows)}


def _paper(
    settings: TrainSettings, examples: Examples, count: int, rounds: int, device: torch.device
) -> Result:
    """Train on the first ``count`` utterances; say how long an epoch of IEMOCAP's size takes."""
    training = Training(settings, examples, device)
    features = Features(examples, training.layers, device, "stream")
    some = examples.utterances[:count]
    training.epoch(features, some[: settings.batch_size])  # warms up
    seconds = [timed(lambda: training.epoch(features, some), device) for _ in range(rounds)]
    batches = -(-count // settings.batch_size)
    return {
        "batches measured": batches,
        "s a batch": quartiles([one / batches for one in seconds]),
        EPOCH: quartiles([one / count * IEMOCAP_ALL / 60 for one in seconds]),
    }


def _table2(rows: Result) -> Result:
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


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line for line in info.splitlines() if line.startswith("model name")), "")
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processor": model.partition(": ")[2] or platform.machine(),
        "cores": cores(),
        "torch threads": torch.get_num_threads(),
        "load average": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "mser")},
    }


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


def _ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(values, others, strict=True)]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=5, help="two or more")
    parser.add_argument("--only", choices=["cache", "loop", "mgcma"])
    parser.add_argument("--small", action="store_true", help="few utterances: a minute or so")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    device = chosen_device(options.device)
    sizes = SMALL if options.small else ON_GPU if device.type == "cuda" else ON_CPU
    rounds = 2 if options.small else options.rounds
    results: Result = {"machine": machine(device)}
    if not options.json:
        print(", ".join(f"{name} {value}" for name, value in results["machine"].items()))
    with reproducible():
        for section in (cache, loop, mgcma):
            name = section.__name__
            if options.only not in (None, name):
                continue
            with tempfile.TemporaryDirectory() as folder:
                results[name] = section(Path(folder), sizes, rounds, device)
            for title, rows in {} if options.json else results[name].items():
                print(f"\n**{name}: {title}** (synthetic)\n\n{table(rows)}", flush=True)
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
