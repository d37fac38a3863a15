"""How fast ways to read are, taken in turn, and how their speeds become the rows of a table."""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from statistics import median

import numpy as np
import torch

from mser.benchmarks.read_methods import Way, is_one
from mser.benchmarks.results import Rows, ratios, turns
from mser.benchmarks.synthetic_features import DIM, DTYPE, FRAME_BYTES, LAYERS, Array, Utterances

BATCH = 32
MULTIPLE = "speed of mser, as a multiple"

Read = Callable[[list[int], slice], None]  # positions of utterances, and which layers of each
Request = tuple[list[int], slice, int]  # what is read, and how many bytes that are
Speed = tuple[float, float]  # gigabytes a second of what was asked for; microseconds an utterance


def copies(way: Way, made: Utterances) -> Read:
    """Leave one copy of each utterance in private memory, in a buffer that all of them share."""
    buffer = np.zeros(LAYERS * max(made.frames) * DIM, DTYPE)
    into = {
        one: [buffer[: layers * n * DIM].reshape(layers, n, DIM) for n in made.frames]
        for one, layers in ((True, 1), (False, LAYERS))
    }

    def read(batch: list[int], layers: slice) -> None:
        if way.fresh:
            for _ in way.get(batch, layers):
                pass
            return
        places = into[is_one(layers)]
        for at, states in zip(batch, way.get(batch, layers), strict=True):
            np.copyto(places[at], states)

    return read


class Sums:
    """Sum the layers of each utterance in float32, with weights, on a device."""

    def __init__(self, made: Utterances, device: torch.device) -> None:
        self.device = device
        weights = torch.softmax(torch.arange(LAYERS, dtype=torch.float32), 0)
        self.weights = weights.to(device)[None]
        self.wide = torch.zeros(LAYERS * max(made.frames) * DIM, device=device)
        self.sum = torch.zeros(1, max(made.frames) * DIM, device=device)

    def one(self, states: Array) -> torch.Tensor:
        """Return (1, frames × dim), which the next call overwrites."""
        given = torch.from_numpy(states).to(self.device)
        layers = self.wide[: given.numel()].view(given.shape).copy_(given).flatten(1)
        return torch.matmul(self.weights, layers, out=self.sum[:, : layers.shape[1]])

    def of(self, way: Way) -> Read:
        def read(batch: list[int], layers: slice) -> None:
            for states in way.get(batch, layers):
                self.one(states)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

        return read


def agree(ways: Mapping[str, Way], made: Utterances) -> None:
    """See that all give the same bits: of every utterance, and of single layers.

    After that all files are in the page cache, and all that is mapped has been looked at.
    """
    first = next(iter(ways.values()))
    every = range(len(made.ids))
    requests = [([at], slice(None)) for at in every]
    requests += [(list(every)[layer::LAYERS][:BATCH], one_layer(layer)) for layer in range(LAYERS)]
    requests.append((list(every)[:BATCH], slice(None)))
    for batch, layers in requests:
        right = [np.array(states) for states in first.get(batch, layers)]
        for name, way in ways.items():
            for states, its in zip(right, way.get(batch, layers), strict=True):
                assert its.dtype == states.dtype, name
                assert np.array_equal(its.view(np.uint16), states.view(np.uint16)), name


def one_layer(layer: int) -> slice:
    return slice(layer, layer + 1)


def draw_requests(made: Utterances, single: bool, seed: int, count: int = 200) -> list[Request]:
    """Batches of random utterances: of each batch all layers, or one layer that is drawn for it."""
    rng = np.random.default_rng(seed)
    requests = []
    for _ in range(count):
        batch = rng.integers(len(made.ids), size=BATCH).tolist()
        layers = one_layer(int(rng.integers(LAYERS))) if single else slice(None)
        requests.append((batch, layers, asked_bytes(made, batch, layers)))
    return requests


def asked_bytes(made: Utterances, batch: Sequence[int], layers: slice) -> int:
    return sum(made.frames[at] for at in batch) * (1 if is_one(layers) else LAYERS) * FRAME_BYTES


def speed(read: Read, requests: Sequence[Request], seconds: float) -> Speed:
    """Read batch by batch until the time is over, one batch at least."""
    total = utterances = 0
    spent, begin = 0.0, time.perf_counter()
    for batch, layers, count in cycle(requests):
        read(batch, layers)
        total, utterances = total + count, utterances + len(batch)
        spent = time.perf_counter() - begin
        if spent > seconds:
            break
    return total / spent / 1e9, spent / utterances * 1e6


def speeds(
    reads: Mapping[str, Read], made: Utterances, single: bool, seconds: float, rounds: int
) -> dict[str, list[Speed]]:
    """Take all in turn. Rounds are short and many, so that a machine that is busy favours none."""
    found: dict[str, list[Speed]] = {name: [] for name in reads}
    for number, name in turns([*reads], rounds):
        requests = draw_requests(made, single, number)
        reads[name](*requests[0][:2])  # its files were used last before all the others'
        found[name].append(speed(reads[name], requests, seconds))
    return found


def speed_rows(found: Mapping[str, list[Speed]], over: str, ours: str | None = None) -> Rows:
    """Medians, and the ratios of speeds of the same rounds."""
    rate = {name: [one for one, _ in measured] for name, measured in found.items()}
    rows: Rows = {}
    for name, measured in found.items():
        rows[name] = {
            "GB/s": median(rate[name]),
            "µs an utterance": median(each for _, each in measured),
            f"× {over}": ratios(rate[name], rate[over]),
        }
        if ours:
            rows[name][MULTIPLE] = ratios(rate[ours], rate[name])
    return rows
