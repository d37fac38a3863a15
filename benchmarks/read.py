"""How fast features are read from a cache, and in how much memory, beside other ways to read them.

All data are **synthetic**: random float16 numbers in the shape of wav2vec2-base (13 layers, 768
wide, 50 frames a second), in utterances as long as MELD's. They lie in the page cache, so the disk
is not measured. Speeds differ from machine to machine; what holds are the ratios within one run.

* ``reading``: one layer, and all layers, of random utterances. Whoever reads, the features end as
  one copy in private memory: a view is copied into a buffer, what is a fresh copy stays as it is.
  The memory map is the most there can be: the very files of the Zarr entry, mapped once, with all
  offsets in Python lists, nothing looked up by id and nothing checked.
* ``compression``: sizes and speeds of compressed entries. Random numbers hardly shrink.
* ``memory``: what a fresh process takes to read equally many utterances of ever larger stores.
* ``million``, with ``--million`` and then alone: an entry of a million tiny utterances.

Run it with ``python benchmarks/read.py`` or ``python -m mser.benchmarks.read``.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
import zarr

from mser.benchmarks.contenders import Read, chunked_copy, entry_read, npy_files, slicing
from mser.benchmarks.processes import Result, memory, million, quartiles
from mser.benchmarks.synthetic import (
    DTYPE,
    FRAME_BYTES,
    LAYERS,
    Utterances,
    draw_shards,
    draw_utterances,
    make_entry,
)

BATCH = 32
WARM_UP = 3.0  # seconds, at most
MEMORY_MAP, ZARR_PYTHON = "memory map", "zarr-python, the same shards"

Request = tuple[list[int], slice, int]  # what is read, as by a Read, and how many bytes that are


def draw_requests(made: Utterances, one_layer: bool, seed: int) -> list[Request]:
    """Batches of random utterances: of each batch all layers, or one layer that is drawn for it."""
    rng = np.random.default_rng(seed)
    requests = []
    for _ in range(200):
        batch, layer = rng.integers(len(made.ids), size=BATCH).tolist(), int(rng.integers(LAYERS))
        layers, count = (slice(layer, layer + 1), 1) if one_layer else (slice(None), LAYERS)
        frames = sum(made.frames[at] for at in batch)
        requests.append((batch, layers, frames * count * FRAME_BYTES))
    return requests


def speed(read: Read, requests: list[Request], seconds: float) -> tuple[float, float]:
    """Gigabytes a second of what was asked for, and microseconds an utterance."""
    total = utterances = 0
    spent, begin = 0.0, time.perf_counter()
    for batch, layers, count in cycle(requests):
        read(batch, layers)
        total, utterances = total + count, utterances + len(batch)
        spent = time.perf_counter() - begin
        if spent > seconds:
            break
    return total / spent / 1e9, spent / utterances * 1e6


def compare(
    contenders: dict[str, Read],
    against: Sequence[str],
    made: Utterances,
    one_layer: bool,
    seconds: float,
    rounds: int,
) -> Result:
    """All contenders in turn, in another order each round: medians, and ratios within a round.

    Rounds are short and many, so that a machine that is busy for a while favours nobody.
    """
    batch, layers, _ = draw_requests(made, one_layer, seed=0)[0]
    right = contenders[against[0]](batch, layers).tobytes()
    for name, read in contenders.items():
        assert read(batch, layers).tobytes() == right, name
        begin = time.perf_counter()
        for at in range(len(made.ids)):  # once through, so that all pages are there and mapped
            if time.perf_counter() - begin < WARM_UP:
                read([at], slice(None))
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for number in range(rounds):
        requests = draw_requests(made, one_layer, number)
        for at in np.random.default_rng(number).permutation(len(contenders)):
            name = list(contenders)[at]
            found[name].append(speed(contenders[name], requests, seconds))
    result: Result = {}
    for name, measured in found.items():
        gigabytes, microseconds = (median(column) for column in zip(*measured, strict=True))
        result[name] = {"GB/s": gigabytes, "µs an utterance": microseconds}
        for other in against:
            pairs = zip(measured, found[other], strict=True)
            ratios = [one / its for (one, _), (its, _) in pairs]
            result[name][f"× {other}"] = quartiles(ratios)
    return result


def reading(folder: Path, gigabytes: float, seconds: float, rounds: int) -> Result:
    made = draw_utterances(gigabytes)
    stores = {
        store: make_entry(folder / store, draw_shards(made), store=store)
        for store in ("zarr", "hdf5")
    }
    for at, one in enumerate(one for shard in draw_shards(made) for one in shard):
        np.save(folder / f"{at}.npy", one.hidden_states)
    paths = {store: sorted((folder / store).glob("*/*/shards/*")) for store in stores}
    hdf5s = [h5py.File(path, "r", locking=False)["hidden_states"] for path in paths["hdf5"]]
    zarrs: list[Any] = [zarr.open_group(path, mode="r")["hidden_states"] for path in paths["zarr"]]
    maps = [
        np.asarray(np.memmap(path / "hidden_states/c/0/0/0", DTYPE, "r", shape=array.shape))
        for path, array in zip(paths["zarr"], zarrs, strict=True)
    ]
    chunked = [chunked_copy(folder / f"{at}.zarr", states) for at, states in enumerate(maps)]
    contenders = {
        MEMORY_MAP: slicing(maps, made, fresh=False),
        "mser, Zarr, one at a time": entry_read(stores["zarr"], made, batched=False),
        "mser, Zarr, 32 at once": entry_read(stores["zarr"], made),
        "mser, HDF5, one at a time": entry_read(stores["hdf5"], made, batched=False),
        "mser, HDF5, 32 at once": entry_read(stores["hdf5"], made),
        "h5py, the same shards": slicing(hdf5s, made, fresh=True),
        ZARR_PYTHON: slicing(zarrs, made, fresh=True),
        "zarr-python, chunks of its own": slicing(chunked, made, fresh=True),
        "a .npy each, np.load": npy_files(folder, made, mapped=False),
        "a .npy each, mapped": npy_files(folder, made, mapped=True),
    }
    against = (MEMORY_MAP, ZARR_PYTHON)
    return {
        "one layer": compare(contenders, against, made, True, seconds, rounds),
        "all layers": compare(contenders, against, made, False, seconds, rounds),
    }


def compression(folder: Path, gigabytes: float, seconds: float, rounds: int) -> Result:
    made = draw_utterances(gigabytes)
    raw = sum(made.frames) * LAYERS * FRAME_BYTES
    contenders, sizes = {}, {}
    for store in ("zarr", "hdf5"):
        for how in ("none", "zstd", "blosc"):
            name = f"{store}, {how}"
            entry = make_entry(folder / name, draw_shards(made), store=store, compression=how)
            contenders[name] = entry_read(entry, made)
            sizes[name] = {"size × the raw bytes": entry.folder.size("shards") / raw}
    against = ("zarr, none",)
    return {
        "size": sizes,
        "one layer": compare(contenders, against, made, True, seconds, rounds),
        "all layers": compare(contenders, against, made, False, seconds, rounds),
    }


def table(rows: dict[str, Result]) -> str:
    """As Markdown; of three numbers the first is a median, the others are its quartiles."""

    def number(value: float) -> str:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"

    def cell(value: Any) -> str:
        if isinstance(value, list):
            return f"{number(value[0])} ({number(value[1])}–{number(value[2])})"
        return number(value) if isinstance(value, float) else str(value)

    names = list(next(iter(rows.values())))
    lines = [["", *names], ["---"] + ["---:"] * len(names)]
    lines += [[row, *(cell(values[name]) for name in names)] for row, values in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.2, help="size of a store")
    parser.add_argument("--seconds", type=float, default=0.1, help="for one measurement")
    parser.add_argument("--rounds", type=int, default=25, help="measurements of each contender")
    parser.add_argument("--folder", type=Path, help="where to write, else the temporary folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--million", type=int, nargs="?", const=1_000_000, metavar="N", help="this section alone"
    )
    options = parser.parse_args()
    effort = {"seconds": options.seconds, "rounds": options.rounds}
    sections: dict[str, Callable[[Path], Result]] = {
        "reading": lambda at: reading(at, options.gigabytes, **effort),
        "compression": lambda at: compression(at, options.gigabytes / 6, **effort),
        "memory": lambda at: memory(at, options.gigabytes),
    }
    if options.million:
        sections = {"million": lambda at: million(at, options.million)}
    results: Result = {}
    for name, section in sections.items():
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            results[name] = section(Path(folder))
        for title, rows in {} if options.json else results[name].items():
            print(f"\n**{name}: {title}** (synthetic)\n\n{table(rows)}", flush=True)
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
