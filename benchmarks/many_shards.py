"""Entries of many utterances or of many shards: opening, reading rows, and maintenance.

    python -m mser.benchmarks.many_shards --utterances 10000000
    python -m mser.benchmarks.many_shards --shards 100000

With ``--utterances``, the entry is an index without shards, opened in a process of its own with
its lookup file and without. With ``--shards``, the shards are real, with ten utterances of one
frame each, and ``ls``, ``verify --sample``, ``gc`` and a publication without news are timed. Prints
a line for each value. The folder needs 0.2 KB for each utterance and 8 KB for each shard.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from mser.benchmarks.processes import growth, memory_now
from mser.cache import (
    EntrySpec,
    EntryWriter,
    FeatureCache,
    UtteranceFeatures,
    collect_garbage,
    listing,
    verify,
)
from mser.cache.index import Index
from mser.cache.lookup import lookup_of
from mser.cache.shard import SCHEMA

SPEC = EntrySpec("made-up", "speech", "random", {"seed": 1}, (0, 1), 8, "float16")
IN_SHARD = 10
PER_SHARD = 1000  # utterances of a shard of the index without shards
ROWS = 1000  # read at random
Result = TypeVar("Result")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--utterances", type=int, default=0)
    parser.add_argument("--shards", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="default: a temporary folder")
    parser.add_argument("--opened", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.opened:
        print(json.dumps(opened(options.folder)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.utterances:
            many_utterances(Path(folder), options.utterances)
        if options.shards:
            many_shards(Path(folder), options.shards)


def many_utterances(folder: Path, count: int) -> None:
    """Measure opening an index and reading rows, with the lookup file and without."""
    writer = FeatureCache(folder / "utterances").writer(SPEC, {})
    index = timed(f"{count} utterances: made", lambda: Index(made_up_rows(count)))
    name = timed("publication", lambda: publish(writer, index))
    sizes = [writer.folder.size(file) / 1e6 for file in (name, lookup_of(name))]
    print("Parquet {:.0f} MB, lookup {:.0f} MB".format(*sizes), flush=True)
    for which in ("with", "without"):
        if which == "without":
            writer.folder.remove(lookup_of(name))
        command = [sys.executable, "-m", "mser.benchmarks.many_shards", "--opened", "--folder"]
        done = subprocess.run([*command, str(folder)], check=True, capture_output=True, text=True)
        for key, value in json.loads(done.stdout).items():
            print(f"{which} the lookup file: {key} {value:.1f}")


def publish(writer: EntryWriter, index: Index) -> str:
    """Publish an index and return the name of its file."""
    writer.publish("0" * 12)  # an empty entry, whose record is then changed
    record = json.loads(writer.folder.read("entry.json"))
    record["index"] = name = index.write(writer.folder)
    writer.folder.write("entry.json", json.dumps(record).encode())
    return name


def made_up_rows(count: int) -> pa.Table:
    """Return the rows of utterances of one frame, with made-up hashes."""
    ids = pa.array(np.char.mod("train/utt%09d", np.arange(count)).tolist())
    hashes = pa.array([hashlib.sha256(b"%d" % n).hexdigest() for n in range(count)])
    shards = np.arange(count) // PER_SHARD
    names = [f"{n:05}-{n:032x}" for n in range(int(shards[-1]) + 1)]
    columns = {
        "id": ids,
        "shard": pa.DictionaryArray.from_arrays(pa.array(shards.astype("int32")), names),
        "offset": pa.array(np.arange(count) % PER_SHARD),
        "length": pa.array(np.ones(count, "int64")),
        "content_hash": hashes,
        "checksum": pa.compute.utf8_slice_codeunits(hashes, 0, 32),
        "written": pa.array(["2026-01-01T00:00:00.000000+00:00"] * count).dictionary_encode(),
    }
    return pa.table(columns, schema=SCHEMA)


def opened(folder: Path) -> dict[str, float]:
    """Open the entry in this process and read rows at random; return milliseconds and memory."""
    rng, before, begin = np.random.default_rng(0), memory_now(), time.perf_counter()
    entry = FeatureCache(folder / "utterances").open("made-up")
    count = len(entry)
    entry.length(entry.ids[count // 2])
    opening = (time.perf_counter() - begin) * 1e3
    drawn = [f"train/utt{number:09}" for number in rng.integers(count, size=ROWS)]
    begin = time.perf_counter()
    for id in drawn:
        entry.length(id)
    row = (time.perf_counter() - begin) / ROWS * 1e3
    memory = growth(before, memory_now())
    return {"open, ms": opening, "a random row, ms": row, **memory}


def many_shards(folder: Path, count: int) -> None:
    """Time the maintenance of an entry of many small shards."""
    cache = FeatureCache(folder / "shards")
    writer = cache.writer(SPEC, {}, "hdf5")
    states = np.random.default_rng(1).standard_normal((2, 1, 8)).astype("float16")

    def fill() -> None:
        for number in range(count):
            ids = range(number * IN_SHARD, (number + 1) * IN_SHARD)
            features = [UtteranceFeatures(f"utt{id}", f"{id:064}", states) for id in ids]
            writer.write_shard(number, features)

    with patch("os.fsync"):  # the time of a disk is not measured here
        timed(f"{count} shards of {IN_SHARD} utterances: written", fill)
    timed("first publication", lambda: writer.publish("0" * 12))
    timed("publication without news", lambda: writer.publish("0" * 12))
    timed("ls", lambda: listing(cache))
    timed("verify --sample 0.001", lambda: verify(writer.folder, 0.001))
    timed("gc", lambda: collect_garbage(cache))


def timed(what: str, work: Callable[[], Result]) -> Result:
    begin, cpu = time.perf_counter(), time.process_time()
    result = work()
    seconds, used = time.perf_counter() - begin, time.process_time() - cpu
    print(f"{what}: {seconds:.1f} s, of them {used:.1f} s of this process's CPU time", flush=True)
    return result


if __name__ == "__main__":
    main()
