"""Threads and processes read an entry of several forms, and write one, at the same time."""

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mser.cache import Entry, FeatureCache, UtteranceFeatures, verify
from mser.tests.support.cache_entries import FORMS, Array, array, same_bits, spec


def mixed(root: Path) -> dict[str, Array]:
    """An entry with a shard of each form."""
    arrays: dict[str, Array] = {}
    for number, (store, compression) in enumerate(FORMS):
        shard = {f"{number}{n}": array(number, 1 + 100 * n) for n in range(4)}
        arrays |= shard
        writer = FeatureCache(root).writer(spec(), {}, store, compression)
        writer.write_shard(
            number, [UtteranceFeatures(id, "hash", states) for id, states in shard.items()]
        )
    writer.publish("0" * 12)
    return arrays


def test_an_entry_may_have_shards_of_several_forms(tmp_path: Path) -> None:
    arrays = mixed(tmp_path)
    entry = FeatureCache(tmp_path).open("made-up")
    assert entry.ids[:] == sorted(arrays)
    for found, states in zip(entry.read(arrays), arrays.values(), strict=True):
        assert same_bits(found, states)
    assert verify(entry.folder).damage == []


@pytest.mark.parametrize(
    ("method", "opened_before"), [("spawn", True), ("fork", True), ("fork", False)]
)
def test_other_processes_read_an_entry(tmp_path: Path, method: str, opened_before: bool) -> None:
    arrays = mixed(tmp_path)
    entry = FeatureCache(tmp_path).open("made-up")
    if opened_before:
        assert len(entry.read(arrays)) == len(arrays)
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        for id, found in zip(arrays, pool.map(entry.__getitem__, arrays), strict=True):
            assert same_bits(found, arrays[id])
    assert all(same_bits(entry[id], states) for id, states in arrays.items())


def test_processes_may_be_forked_while_threads_read(tmp_path: Path) -> None:
    """A data loader does this when it is started again for each epoch."""
    arrays = mixed(tmp_path)
    entry = FeatureCache(tmp_path).open("made-up")
    stop = False

    def read_on() -> None:
        while not stop:
            for id, states in arrays.items():
                assert same_bits(entry[id], states)

    with ThreadPoolExecutor(2) as threads:
        reading = [threads.submit(read_on) for _ in range(2)]
        for _ in range(3):
            context = multiprocessing.get_context("fork")
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                for id, found in zip(arrays, pool.map(entry.__getitem__, arrays), strict=True):
                    assert same_bits(found, arrays[id])
        stop = True
        for future in reading:
            future.result()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_torch_data_loader_read_an_entry(tmp_path: Path, method: str) -> None:
    from torch.utils.data import DataLoader  # noqa: PLC0415 -- seconds to import

    arrays = mixed(tmp_path)
    entry: Any = FeatureCache(tmp_path).open("made-up")
    ids = [*arrays, *arrays]
    loader: Any = DataLoader(
        entry,
        sampler=ids,
        batch_size=None,
        num_workers=2 if method == "fork" else 1,  # a spawned worker imports torch
        collate_fn=np.array,
        multiprocessing_context=method,
    )
    for id, found in zip(ids, loader, strict=True):
        assert same_bits(found, arrays[id])


@pytest.mark.parametrize("many", [lambda entry, id: entry[id], lambda e, id: e.read([id], [0])[0]])
def test_threads_read_an_entry(tmp_path: Path, many: Callable[[Entry, str], Array]) -> None:
    arrays = mixed(tmp_path)
    entry = FeatureCache(tmp_path).open("made-up")
    wanted = [*arrays] * 5
    with ThreadPoolExecutor(8) as pool:
        for id, found in zip(wanted, pool.map(lambda id: many(entry, id), wanted), strict=True):
            assert same_bits(found, arrays[id][: len(found)])


WRITES = """
import json, sys
import numpy as np
from mser.cache import EntrySpec, FeatureCache, UtteranceFeatures

root, fields, store, compression = sys.argv[1:]
fields = json.loads(fields)
spec = EntrySpec(**{**fields, "layers": tuple(fields["layers"])})
writer = FeatureCache(root).writer(spec, {}, store, compression)
for number in range(4):
    states = np.full((3, 1 + number, 4), number, "float16")
    writer.write_shard(number, [UtteranceFeatures(f"{store}{compression}{number}", "hash", states)])
    writer.publish("0" * 12)
"""


def test_writers_of_several_forms_fill_one_entry_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITES, str(tmp_path), json.dumps(asdict(spec()))]
    forms = [("zarr", "none"), ("hdf5", "none"), ("hdf5", "zstd")]
    running = [subprocess.Popen([*command, *form]) for form in forms]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    entry = FeatureCache(tmp_path).open("made-up")
    assert len(entry) == 12
    for id in entry.ids:
        assert same_bits(entry[id], np.full((3, 1 + int(id[-1]), 4), int(id[-1]), "float16"))
