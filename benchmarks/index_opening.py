"""What opening an entry takes: this module is the process, and prints what it found as JSON.

It imports what a reader of the cache needs and no more, so that its start is that of a reader.
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


def opened(root: Path, seed: int, started: float) -> Result:
    """Open an entry, read one utterance and then batches; ``started`` is when the process was."""
    rng, before, begin = np.random.default_rng(seed), memory_now(), time.perf_counter()
    entry = FeatureCache(root).open(DATASET)
    count = len(entry.ids)

    def some(number: int) -> list[str]:
        return [f"train/utt{at}" for at in rng.integers(count, size=number)]

    (first,) = entry.read(some(1))
    assert len(first) == entry.n_layers
    found = {
        "from open to the first utterance, ms": (time.perf_counter() - begin) * 1e3,
        "the same, with Python's start and the imports, ms": (time.time() - started) * 1e3,
    }
    seconds = []
    for _ in range(BATCHES):
        wanted, begin = some(BATCH), time.perf_counter()
        entry.read(wanted)
        seconds.append(time.perf_counter() - begin)
    return {
        **found,
        f"first batch of {BATCH} (opens shards), ms": seconds[0] * 1e3,
        f"later batches of {BATCH}, ms": median(seconds[1:]) * 1e3,
        **growth(before, memory_now()),
        "utterances": count,
    }


if __name__ == "__main__":
    print(json.dumps(opened(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
