"""Measure how fast the methods read, in turn, and make rows of a table from their speeds."""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from statistics import median

import numpy as np
import torch

from mser.benchmarks.read_methods import OpenStore, is_single_layer
from mser.benchmarks.results import Rows, ratios, shuffled_turns
from mser.benchmarks.synthetic_features import (
    DIM,
    DTYPE,
    FRAME_BYTES,
    LAYERS,
    Array,
    UtteranceLayout,
)

BATCH = 32
MSER_SPEED = "mser's speed ÷ this"

Read = Callable[[list[int], slice], None]  # reads these layers of the utterances at these positions
Request = tuple[list[int], slice, int]  # positions, layers, and the number of bytes requested
Speed = tuple[float, float]  # GB of requested features per second; µs per utterance


def copying_reader(store: OpenStore, layout: UtteranceLayout) -> Read:
    """Return a function that leaves one copy of each utterance in private memory.

    Views are copied into a buffer that all utterances share.
    """
    buffer = np.zeros(LAYERS * max(layout.frames) * DIM, DTYPE)
    targets = {
        single: [buffer[: layers * n * DIM].reshape(layers, n, DIM) for n in layout.frames]
        for single, layers in ((True, 1), (False, LAYERS))
    }

    def read(batch: list[int], layers: slice) -> None:
        if store.returns_copies:
            for _ in store.get(batch, layers):
                pass
            return
        into = targets[is_single_layer(layers)]
        for index, states in zip(batch, store.get(batch, layers), strict=True):
            np.copyto(into[index], states)

    return read


class WeightedSum:
    """The weighted sum of an utterance's layers in float32, on a device."""

    def __init__(self, layout: UtteranceLayout, device: torch.device) -> None:
        self.device = device
        weights = torch.softmax(torch.arange(LAYERS, dtype=torch.float32), 0)
        self.weights = weights.to(device)[None]
        self.buffer = torch.zeros(LAYERS * max(layout.frames) * DIM, device=device)
        self.sum = torch.zeros(1, max(layout.frames) * DIM, device=device)

    def __call__(self, states: Array) -> torch.Tensor:
        """Return (1, frames × dim) in a buffer that the next call overwrites."""
        tensor = torch.from_numpy(states).to(self.device)
        layers = self.buffer[: tensor.numel()].view(tensor.shape).copy_(tensor).flatten(1)
        return torch.matmul(self.weights, layers, out=self.sum[:, : layers.shape[1]])

    def reader(self, store: OpenStore) -> Read:
        """Return a function that reads utterances and sums the layers of each."""

        def read(batch: list[int], layers: slice) -> None:
            for states in store.get(batch, layers):
                self(states)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

        return read


def check_equal(stores: Mapping[str, OpenStore], layout: UtteranceLayout) -> None:
    """Check that all stores return the same bits for every utterance, and for single layers.

    Afterwards all files are in the page cache, and all mapped pages have been touched.
    """
    first = next(iter(stores.values()))
    every = list(range(len(layout.ids)))
    requests = [([index], slice(None)) for index in every]
    requests += [(every[layer::LAYERS][:BATCH], one_layer(layer)) for layer in range(LAYERS)]
    requests.append((every[:BATCH], slice(None)))
    for batch, layers in requests:
        expected = [np.array(states) for states in first.get(batch, layers)]
        for name, store in stores.items():
            for right, states in zip(expected, store.get(batch, layers), strict=True):
                assert states.dtype == right.dtype, name
                assert np.array_equal(states.view(np.uint16), right.view(np.uint16)), name


def one_layer(layer: int) -> slice:
    return slice(layer, layer + 1)


def draw_requests(
    layout: UtteranceLayout, single: bool, seed: int, count: int = 200
) -> list[Request]:
    """Draw batches of random utterances, each with all layers or with one random layer."""
    rng = np.random.default_rng(seed)
    requests = []
    for _ in range(count):
        batch = rng.integers(len(layout.ids), size=BATCH).tolist()
        layers = one_layer(int(rng.integers(LAYERS))) if single else slice(None)
        requests.append((batch, layers, requested_bytes(layout, batch, layers)))
    return requests


def requested_bytes(layout: UtteranceLayout, batch: Sequence[int], layers: slice) -> int:
    frames = sum(layout.frames[index] for index in batch)
    return frames * (1 if is_single_layer(layers) else LAYERS) * FRAME_BYTES


def measure_speed(read: Read, requests: Sequence[Request], seconds: float) -> Speed:
    """Read batch by batch until the time is over; at least one batch."""
    total = utterances = 0
    spent, begin = 0.0, time.perf_counter()
    for batch, layers, count in cycle(requests):
        read(batch, layers)
        total, utterances = total + count, utterances + len(batch)
        spent = time.perf_counter() - begin
        if spent > seconds:
            break
    return total / spent / 1e9, spent / utterances * 1e6


def measure_speeds(
    readers: Mapping[str, Read], layout: UtteranceLayout, single: bool, seconds: float, rounds: int
) -> dict[str, list[Speed]]:
    """Measure all readers in turn. Many short rounds spread the load of other work evenly."""
    speeds: dict[str, list[Speed]] = {name: [] for name in readers}
    for number, name in shuffled_turns([*readers], rounds):
        requests = draw_requests(layout, single, number)
        # Other readers have just used the processor's caches, so the first batch is not timed.
        readers[name](*requests[0][:2])
        speeds[name].append(measure_speed(readers[name], requests, seconds))
    return speeds


def speed_rows(speeds: Mapping[str, list[Speed]], baseline: str, mser: str | None = None) -> Rows:
    """Return medians, and ratios of speeds within a round.

    Args:
        speeds: name → speed in each round.
        baseline: the name by whose speed the others are divided.
        mser: the name of mser's row; if given, a column holds its speed divided by each.
    """
    rates = {name: [rate for rate, _ in measured] for name, measured in speeds.items()}
    rows: Rows = {}
    for name, measured in speeds.items():
        rows[name] = {
            "GB/s": median(rates[name]),
            "µs per utterance": median(micros for _, micros in measured),
            f"speed ÷ {baseline}": ratios(rates[name], rates[baseline]),
        }
        if mser:
            rows[name][MSER_SPEED] = ratios(rates[mser], rates[name])
    return rows
