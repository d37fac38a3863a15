"""Four extractions into one entry, of which one after the other is ended at a random instant.

``MSER_KILLS`` is the number of ends for each format; with ``-s`` the test prints what it counted.
The instants follow from a seed, which ``MSER_STRESS_SEED`` changes.
"""

import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from mser.cache import FeatureCache, verify
from mser.pipeline.corpora import synthetic
from mser.tests.support.cache_entries import Array
from mser.tests.support.extract_runs import features, run
from mser.tests.support.fork_server import MSER, Fork, fork_server

pytestmark = pytest.mark.exhaustive

KILLS = int(os.environ.get("MSER_KILLS", "6"))
WRITERS = 4
SHARD_MIB = 1e-4  # one utterance in each shard
SHARDS_FOR_A_KILL = 24  # so that work is left for the last kill
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MOST_SECONDS = 20.0  # between two kills


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus. Do not change it."""
    root = tmp_path_factory.mktemp("killed") / "corpus"
    synthetic.make(root, utterances_per_session=-(-SHARDS_FOR_A_KILL * KILLS // 4))
    return root


@pytest.fixture(scope="module")
def expected(
    root: Path, encoders: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Array]:
    """The features of an extraction that nobody ends, with the same batches."""
    cache = tmp_path_factory.mktemp("alone") / "cache"
    run(root, cache, {"speech": encoders["speech"]}, "synthetic", shard_mib=SHARD_MIB)
    stored: dict[str, Array] = features(cache, "speech", "synthetic")
    return stored


class Reader(threading.Thread):
    """Opens the cache again and again, and compares utterances at random."""

    def __init__(self, cache: Path, expected: dict[str, Array]) -> None:
        super().__init__()
        self._cache, self._expected = FeatureCache(cache), expected
        self._chance, self._stop_asked = random.Random(0), threading.Event()
        self.reads, self.wrong = 0, 0
        self.errors: list[str] = []

    def run(self) -> None:
        while not self._stop_asked.wait(0.05):
            try:
                if entries := self._cache.entries("synthetic"):
                    ids = self._chance.sample(list(entries[0].ids), min(20, len(entries[0])))
                    for id, states in zip(ids, entries[0].read(ids), strict=True):
                        self.reads += 1
                        self.wrong += not np.array_equal(states, self._expected[id])
            except Exception as error:  # whatever a user would see
                self.errors.append(repr(error))

    @contextmanager
    def reading(self) -> Iterator[None]:
        self.start()
        try:
            yield
        finally:
            self._stop_asked.set()
            self.join()


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_nothing_is_lost_whenever_a_writer_ends(
    root: Path, encoders: dict[str, str], expected: dict[str, Array], tmp_path: Path, store: str
) -> None:
    seed = os.environ.get("MSER_STRESS_SEED", "0")
    chance, cache = random.Random(seed), tmp_path / "cache"
    command = [
        *("extract", "--dataset", "synthetic", "--root", root, "--cache", cache),
        *("--modalities", "speech", "--speech-encoder", encoders["speech"], "--device", "cpu"),
        *("--workers", 0, "--shard-mib", SHARD_MIB, "--store", store),
    ]

    def start() -> Fork:
        return fork_server().start(MSER, *command, session=True)

    def shards() -> int:
        return len([*cache.glob("synthetic/*/shards/[0-9]*")])

    reader, codes = Reader(cache, expected), Counter[int]()
    with reader.reading():
        writers = [start() for _ in range(WRITERS)]
        numbers = itertools.cycle(SIGNALS)
        for _ in range(KILLS):
            wanted, until = shards() + chance.randrange(SHARDS_FOR_A_KILL // 2), time.monotonic()
            while shards() < wanted and time.monotonic() - until < MOST_SECONDS:
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 0.5))
            at_work = [writer for writer in writers if writer.poll() is None]
            if not at_work:
                break  # the work was done before the last kill
            victim = chance.choice(at_work)
            victim.send_signal(next(numbers))
            _, err = victim.communicate()
            if victim.returncode == 0:  # it ended by itself just before: all work is done
                assert len(FeatureCache(cache).open("synthetic")) == len(expected), err
                break
            codes[victim.returncode or 0] += 1
            assert victim.returncode in {-number for number in SIGNALS}, err
            writers[writers.index(victim)] = start()
        ends = [writer.communicate() for writer in writers]
        assert [writer.returncode for writer in writers] == [0] * WRITERS, ends
    stored = features(cache, "speech", "synthetic")
    entry = FeatureCache(cache).open("synthetic")
    assert sum(codes.values()) >= min(3, KILLS), "almost no writer was ended"
    print(
        f"\n{store}: seed {seed}, {sum(codes.values())} kills, exit codes {dict(codes)}, "
        f"{len(expected)} utterances, {len(expected.keys() - stored.keys())} lost; "
        f"{reader.reads} reads during the work, {reader.wrong} wrong, {len(reader.errors)} errors"
    )
    assert reader.errors == []
    assert (reader.wrong, reader.reads > 0) == (0, True)
    assert list(entry.ids) == sorted(expected)
    for id, states in stored.items():
        np.testing.assert_array_equal(states, expected[id])
    assert verify(entry.folder).damage == []
