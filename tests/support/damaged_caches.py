"""Entries that are damaged on purpose."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mser.cache import Entry, EntryWriter, FeatureCache, verify
from mser.cache.formats import store_of
from mser.cache.maintenance.verify import Verification
from mser.tests.support.cache_entries import (
    DIM,
    LAYERS,
    Array,
    fill,
    path_of,
    same_bits,
    spec,
)

VICTIM = 1  # the number of the shard that is damaged


@dataclass(frozen=True)
class Made:
    """An entry to damage, and an undamaged one beside it."""

    writer: EntryWriter
    shards: list[dict[str, Array]]
    beside: EntryWriter

    @property
    def path(self) -> Path:
        return path_of(self.writer)

    @property
    def names(self) -> list[str]:
        return self.writer.shards()

    @property
    def arrays(self) -> dict[str, Array]:
        return {id: states for shard in self.shards for id, states in shard.items()}

    def ids(self, number: int = VICTIM) -> tuple[str, ...]:
        return tuple(self.shards[number])

    def data(self, number: int = VICTIM) -> Path:
        """The file of a shard that holds the numbers."""
        shard = self.path / "shards" / self.names[number]
        return shard / "hidden_states/c/0/0/0" if shard.is_dir() else shard


def noise(seed: int, frames: int) -> Array:
    """Random bits, which no compression makes smaller."""
    bits = np.random.default_rng(seed).integers(0, 1 << 16, (LAYERS, frames, DIM), "uint16")
    return bits.view("float16")


def existing(
    root: Path, shards: list[dict[str, Array]], store: str, compression: str, **changes: Any
) -> EntryWriter:
    """What ``fill`` returns, for an entry that exists already."""
    assert shards
    return FeatureCache(root).existing(spec(**changes), {"made by": "a test"}, store, compression)


def make(root: Path, store: str, compression: str, fill: Callable[..., EntryWriter] = fill) -> Made:
    shards = [{f"{n}{x}": noise(9 * n + i, 5 + i) for i, x in enumerate("abc")} for n in range(3)]
    form: dict[str, Any] = {"store": store, "compression": compression}
    beside = fill(root, shards, encoder="beside", identity={}, **form)
    return Made(fill(root, shards, **form), shards, beside)


def flip(file: Path, position: int, mask: int = 1) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= mask
    file.write_bytes(content)


def flip_features(made: Made, id: str) -> None:
    """Change one number of the last layer of an utterance."""
    number = int(id[0])
    wanted = made.shards[number][id][-1].tobytes()
    start = made.data(number).read_bytes().find(wanted)
    assert start > 0, "noise was compressed"
    flip(made.data(number), start + len(wanted) // 2)


Finding = tuple[str, tuple[str, ...], tuple[str, ...]]  # shard, lost and undamaged utterances


def findings(result: Verification) -> list[Finding]:
    return [(damage.what, damage.lost, damage.whole) for damage in result.damage]


def content(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def check(made: Made, arrays: dict[str, Array]) -> None:
    """The entry holds these arrays bit by bit, in its own format, and is undamaged."""
    entry = Entry(made.writer.folder)
    assert list(entry.ids) == sorted(arrays)
    assert all(same_bits(entry[id], states) for id, states in arrays.items())
    result = verify(made.writer.folder)
    assert (result.damage, result.unread, result.utterances) == ([], [], len(arrays))
    assert {store_of(name) for name in made.names} <= {made.writer.store}


def damaged_index(result: Verification) -> str:
    names = (damage.what for damage in result.damage)
    return next((name for name in names if name.startswith("index-")), "")


def index_of(made: Made) -> Path:
    (file,) = made.path.glob("index-*.parquet")
    return file


def edit_index(made: Made) -> None:
    flip(index_of(made), index_of(made).stat().st_size // 2)
