"""What the writers and the readers of ``test_cache_stress`` do, each in a process of its own.

The corpus changes again and again: in each round all of it is extracted anew, until the file
``last`` is there. The features of an utterance follow from the hash of its content, which holds
the round.
"""

import json
import random
import time
import zlib
from pathlib import Path

import numpy as np

from mser.cache import Entry, EntrySpec, EntryWriter, FeatureCache, UtteranceFeatures
from mser.cache.storage import leases
from mser.cache.storage.folder import Folder
from mser.tests.support.cache_entries import Array, same_bits
from mser.tests.support.cache_processes import wait_for

SPEC = EntrySpec(
    dataset="stressed",
    modality="speech",
    encoder="some/encoder",
    identity={"weights": "abc"},
    layers=(0, 4, 8),
    dim=16,
    dtype="float16",
)
IDS = [f"utterance {number:03}" for number in range(200)]
JOBS = [(number, IDS[5 * number : 5 * number + 5]) for number in range(40)]
LAYERS = (None, [0], [8], [0, 8], [4, 8], [8, 0])


def hash_of(round_: int, id: str) -> str:
    return f"{round_} {id}"


def round_in(content_hash: str) -> int:
    return int(content_hash.partition(" ")[0])


def features(content_hash: str) -> Array:
    numbers = np.random.default_rng(zlib.crc32(content_hash.encode()))
    return numbers.standard_normal((3, numbers.integers(1, 21), 16)).astype("float16")


def writer(root: Path, store: str) -> EntryWriter:
    return FeatureCache(root).writer(SPEC, {"store": store}, store)


def entry_folder(root: Path) -> Folder:
    return FeatureCache(root).root / SPEC.folder


def lease_of(number: int) -> str:
    return f"{number:05}-stress"


def rounds(control: Path) -> int:
    """The number of the round that has begun last."""
    return max((int(path.name.partition("-")[2]) for path in control.glob("round-*")), default=1)


def write(root: Path, store: str, control: Path, dead_after: float = leases.DEAD_AFTER) -> None:
    """Do what a worker of an extraction does, round after round."""
    leases.DEAD_AFTER, leases.HEARTBEAT = dead_after, dead_after / 9
    ours = writer(root, store)
    while True:
        round_ = rounds(control)
        extract(ours, round_)
        if rounds(control) > round_:
            continue
        if (control / "last").exists():
            return
        (control / f"round-{round_ + 1}").touch()


def extract(ours: EntryWriter, round_: int) -> None:
    waiting, unpublished = list(JOBS), 0
    while waiting:
        number, ids = waiting.pop(0)
        with ours.lease(lease_of(number), 0.02) as mine:
            if not mine:
                waiting.append((number, ids))
                continue
            there = ours.committed(number)
            todo = [id for id in ids if id not in there or round_in(there[id]) < round_]
            computed = []
            for id in todo:
                time.sleep(0.003)
                one = hash_of(round_, id)
                computed.append(UtteranceFeatures(id, one, features(one)))
            if computed:
                ours.write_shard(number, computed)
                unpublished += 1
        if unpublished == 2:
            ours.publish()
            unpublished = 0
    ours.publish()


class Seen:
    """What has been published so far: nothing of it may go away or become older."""

    def __init__(self, control: Path) -> None:
        self.control, self.index = control, ""
        self.rounds: dict[str, int] = {}

    def look(self, entry: Entry) -> None:
        if entry.index_name == self.index:
            return
        columns = entry.index.table.select(["id", "content_hash"]).to_pydict()
        assert columns["id"] == sorted(set(columns["id"]) & set(IDS))
        now = dict(zip(columns["id"], map(round_in, columns["content_hash"]), strict=True))
        gone = [id for id, round_ in self.rounds.items() if now.get(id, 0) < round_]
        assert not gone, f"{len(gone)} of {len(self.rounds)} utterances are gone, or older ones"
        assert max(now.values()) <= rounds(self.control)
        self.index, self.rounds = entry.index_name, now


def watch(root: Path, control: Path, report: Path) -> None:
    """Look at each index that is published, until the file ``stop`` is there."""
    seen, count = Seen(control), 0
    wait_for(lambda: "entry.json" in entry_folder(root).names())
    while not (control / "stop").exists():
        seen.look(Entry(entry_folder(root)))
        count += 1
    report.write_text(json.dumps({"opened": count}))


def read(root: Path, control: Path, report: Path, seed: float) -> None:
    """Open the entry again and again, and read some of it, until the file ``stop`` is there."""
    chance, seen, count = random.Random(seed), Seen(control), 0
    wait_for(lambda: "entry.json" in entry_folder(root).names())
    first = FeatureCache(root).open("stressed")
    hashes = {id: first.content_hash(id) for id in first.ids}
    while not (control / "stop").exists():
        entry = FeatureCache(root).open("stressed")
        seen.look(entry)
        count += 1
        some = chance.sample(list(entry.ids), min(len(entry), 8))
        layers = chance.choice(LAYERS)
        for id, found in zip(some, entry.read(some, layers), strict=True):
            content_hash = entry.content_hash(id)
            expected = features(content_hash)
            assert content_hash.endswith(id)
            assert entry.length(id) == expected.shape[1]
            assert same_bits(entry[id], expected)
            rows = [SPEC.layers.index(layer) for layer in layers or SPEC.layers]
            assert same_bits(found, expected[rows])
        one = chance.choice(list(hashes))  # what was opened long ago is as it was
        assert same_bits(first[one], features(hashes[one]))
        time.sleep(0.005)
    report.write_text(json.dumps({"opened": count}))
