"""The writers and the readers of ``test_stress``, each in a process of its own.

The corpus changes again and again: each round extracts all of it again, until the file ``last``
exists. The features of an utterance follow from the hash of its content, which contains the round.
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
    """The number of the latest round."""
    return max((int(path.name.partition("-")[2]) for path in control.glob("round-*")), default=1)


def write(root: Path, store: str, control: Path, dead_after: float = leases.DEAD_AFTER) -> None:
    """Work like a worker of an extraction, round after round."""
    leases.DEAD_AFTER, leases.HEARTBEAT = dead_after, dead_after / 9
    entry_writer = writer(root, store)
    while True:
        round_ = rounds(control)
        extract(entry_writer, round_)
        if rounds(control) > round_:
            continue
        if (control / "last").exists():
            return
        (control / f"round-{round_ + 1}").touch()


def extract(entry_writer: EntryWriter, round_: int) -> None:
    waiting, unpublished = list(JOBS), 0
    while waiting:
        number, ids = waiting.pop(0)
        with entry_writer.lease(lease_of(number), 0.02) as acquired:
            if not acquired:
                waiting.append((number, ids))
                continue
            stored = entry_writer.committed(number)
            todo = [id for id in ids if id not in stored or round_in(stored[id]) < round_]
            computed = []
            for id in todo:
                time.sleep(0.003)
                content_hash = hash_of(round_, id)
                computed.append(UtteranceFeatures(id, content_hash, features(content_hash)))
            if computed:
                entry_writer.write_shard(number, computed)
                unpublished += 1
        if unpublished == 2:
            entry_writer.publish()
            unpublished = 0
    entry_writer.publish()


class Seen:
    """The published utterances so far: none may be lost or become older."""

    def __init__(self, control: Path) -> None:
        self.control, self.index = control, ""
        self.rounds: dict[str, int] = {}

    def look(self, entry: Entry) -> None:
        if entry.index_name == self.index:
            return
        columns = entry.index.table.select(["id", "content_hash"]).to_pydict()
        assert columns["id"] == sorted(set(columns["id"]) & set(IDS))
        new = dict(zip(columns["id"], map(round_in, columns["content_hash"]), strict=True))
        lost = [id for id, round_ in self.rounds.items() if new.get(id, 0) < round_]
        assert not lost, f"{len(lost)} of {len(self.rounds)} utterances are lost or older"
        assert max(new.values()) <= rounds(self.control)
        self.index, self.rounds = entry.index_name, new


def watch(root: Path, control: Path, report: Path) -> None:
    """Read each published index, until the file ``stop`` exists."""
    seen, count = Seen(control), 0
    wait_for(lambda: "entry.json" in entry_folder(root).names())
    while not (control / "stop").exists():
        seen.look(Entry(entry_folder(root)))
        count += 1
    report.write_text(json.dumps({"opened": count}))


def read(root: Path, control: Path, report: Path, seed: float) -> None:
    """Open the entry again and again and read a part of it, until the file ``stop`` exists."""
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
        for id, states in zip(some, entry.read(some, layers), strict=True):
            content_hash = entry.content_hash(id)
            expected = features(content_hash)
            assert content_hash.endswith(id)
            assert entry.length(id) == expected.shape[1]
            assert same_bits(entry[id], expected)
            rows = [SPEC.layers.index(layer) for layer in layers or SPEC.layers]
            assert same_bits(states, expected[rows])
        id = chance.choice(list(hashes))  # an entry that was opened long ago does not change
        assert same_bits(first[id], features(hashes[id]))
        time.sleep(0.005)
    report.write_text(json.dumps({"opened": count}))
