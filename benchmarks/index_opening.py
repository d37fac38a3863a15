"""Measure opening an entry: this module is run as the measured process and prints JSON.

It imports only what a reader of the cache needs, so it starts as fast as a reader does.
"""

import json
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

from mser.benchmarks.processes import Result, growth, memory_now
from mser.benchmarks.synthetic_features import DATASET
from mser.cache import FeatureCache

BATCH, BATCHES = 64, 20


def open_and_read(root: Path, seed: int, started: float) -> Result:
    """Open an entry, read one utterance and then batches; return times and memory.

    Args:
        root: the cache.
        seed: of the random utterances.
        started: when the process was started, as ``time.time()``.
    """
    rng, before, begin = np.random.default_rng(seed), memory_now(), time.perf_counter()
    entry = FeatureCache(root).open(DATASET)
    count = len(entry.ids)

    def draw_ids(number: int) -> list[str]:
        return [f"train/utt{drawn}" for drawn in rng.integers(count, size=number)]

    (first,) = entry.read(draw_ids(1))
    assert len(first) == entry.n_layers
    opening = {
        "open and read one utterance, ms": (time.perf_counter() - begin) * 1e3,
        "the same with the start of Python and imports, ms": (time.time() - started) * 1e3,
    }
    seconds = []
    for _ in range(BATCHES):
        ids, begin = draw_ids(BATCH), time.perf_counter()
        entry.read(ids)
        seconds.append(time.perf_counter() - begin)
    return {
        **opening,
        f"first batch of {BATCH} (opens shards), ms": seconds[0] * 1e3,
        f"later batches of {BATCH}, ms": median(seconds[1:]) * 1e3,
        **growth(before, memory_now()),
        "utterances": count,
    }


if __name__ == "__main__":
    print(json.dumps(open_and_read(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
