"""What is written comes back, bit by bit, in this process and in others."""

import mmap
import multiprocessing
import os
import pickle
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mser.cache import CacheError, FeatureCache
from mser.tests.support.cache_entries import (
    DIM,
    LAYERS,
    ODD_IDS,
    Array,
    array,
    fill,
    path_of,
    same_bits,
)
from mser.tests.support.page_cache import StillCachedError, cached_share, drop_from_page_cache

# What comes back ----------------------------------------------------------------------------------


@st.composite
def ragged(draw: st.DrawFn) -> tuple[str, list[dict[str, Array]]]:
    """A dtype and shards of ragged arrays with any bits in them, under any ids."""
    dtype = draw(st.sampled_from(["float16", "float32"]))
    any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    ids = draw(
        st.lists(st.sampled_from(ODD_IDS) | any_text, min_size=1, max_size=6, unique=True),
    )
    bits = f"uint{8 * np.dtype(dtype).itemsize}"
    shards: list[dict[str, Array]] = [{}]
    for id in ids:
        frames = draw(st.integers(1, 5))
        states = draw(hnp.arrays(bits, (LAYERS, frames, DIM))).view(dtype)
        if draw(st.booleans()):
            states[draw(st.integers(0, LAYERS - 1))] = 0
        divide: bool = draw(st.booleans())
        if shards[-1] and divide:
            shards.append({})
        shards[-1][id] = states
    return dtype, shards


@settings(max_examples=40, deadline=None)
@given(ragged(), st.lists(st.integers(-LAYERS, LAYERS - 1), min_size=1, max_size=4))
def test_what_is_written_comes_back_bit_by_bit(
    written: tuple[str, list[dict[str, Array]]], layers: list[int]
) -> None:
    dtype, shards = written
    with tempfile.TemporaryDirectory() as root:
        fill(Path(root), shards, dtype=dtype)
        entry = FeatureCache(root).open("made-up")
        arrays = {id: states for shard in shards for id, states in shard.items()}
        assert list(entry.ids) == sorted(arrays)
        assert len(entry) == len(arrays)
        for id, states in arrays.items():
            assert id in entry
            assert same_bits(entry[id], states)
            assert entry.length(id) == states.shape[1]
            assert entry.content_hash(id) == f"hash of {id}"
        whole = entry.read(arrays)
        assert all(same_bits(a, b) for a, b in zip(whole, arrays.values(), strict=True))
        some = entry.read(arrays, layers)
        assert all(same_bits(a, b[layers]) for a, b in zip(some, arrays.values(), strict=True))


def test_an_all_zero_shard_comes_back(tmp_path: Path) -> None:
    zeros = np.zeros((LAYERS, 7, DIM), "float16")
    fill(tmp_path, [{"silence": zeros}])
    assert same_bits(FeatureCache(tmp_path).open("made-up")["silence"], zeros)


def test_an_utterance_that_is_not_there(tmp_path: Path) -> None:
    fill(tmp_path, [{"a": array(1)}])
    entry = FeatureCache(tmp_path).open("made-up")
    for asks in (lambda: entry["z"], lambda: entry.read(["a", "z"]), lambda: entry.length("z")):
        with pytest.raises(CacheError, match="does not hold the utterance 'z'"):
            asks()


def test_an_utterance_is_a_read_only_view(tmp_path: Path) -> None:
    fill(tmp_path, [{"a": array(1), "b": array(2)}])
    entry = FeatureCache(tmp_path).open("made-up")
    view = entry["b"]
    assert not view.flags.owndata
    assert np.shares_memory(view, entry["b"])
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.flags.writeable = True
    for layers in ([0], [1, 2], [-1, 0]):  # a slice, slices, and a copy
        (found,) = entry.read(["b"], layers)
        assert same_bits(found, array(2)[layers])
        with pytest.raises(ValueError, match="read-only"):
            found[:] = 7


# Other processes ----------------------------------------------------------------------------------


def test_an_entry_may_be_pickled(tmp_path: Path) -> None:
    fill(tmp_path, [{"a": array(1)}])
    entry = FeatureCache(tmp_path).open("made-up")
    assert entry["a"].size  # a map is open
    content = pickle.dumps(entry)
    assert len(content) < 1000
    assert same_bits(pickle.loads(content)["a"], array(1))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_an_entry_is_read_in_other_processes(tmp_path: Path, method: str) -> None:
    arrays = {str(n): array(n, 1 + n) for n in range(5)}
    fill(tmp_path, [arrays])
    entry = FeatureCache(tmp_path).open("made-up")
    assert same_bits(entry["0"], arrays["0"])
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        for id, found in zip(arrays, pool.map(entry.__getitem__, arrays), strict=True):
            assert same_bits(found, arrays[id])


def test_workers_of_a_torch_data_loader_read_an_entry(tmp_path: Path) -> None:
    from torch.utils.data import DataLoader  # noqa: PLC0415 -- seconds to import

    arrays = {str(n): array(n, 1 + n) for n in range(8)}
    fill(tmp_path, [dict(list(arrays.items())[:4]), dict(list(arrays.items())[4:])])
    entry: Any = FeatureCache(tmp_path).open("made-up")
    ids = [*arrays, *arrays]
    loader: Any = DataLoader(
        entry, sampler=ids, batch_size=None, num_workers=2, collate_fn=np.array
    )
    for id, found in zip(ids, loader, strict=True):
        assert same_bits(found, arrays[id])


# From a cold disk ---------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(mmap, "MADV_WILLNEED"), reason="Linux")
@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_what_is_read_is_fetched_before_it_is_touched_and_nothing_else(store: str) -> None:
    frames, layer = 200_000, 1  # 1.6 MB a layer
    one, other = (array(0, frames) for _ in range(2))
    with tempfile.TemporaryDirectory() as root:  # tmp_path may lie in memory
        writer = fill(root, [{"one": one, "other": other}], store=store)
        shards = path_of(writer) / "shards"
        entry = FeatureCache(root).open("made-up")
        entry.read(["other"], [2])  # opens the shard
        os.sync()
        try:
            drop_from_page_cache(shards)
        except StillCachedError as error:
            pytest.skip(str(error))
        (states,) = entry.read(["one"], [layer])
        files = [file for file in shards.rglob("*") if file.is_file()]
        wanted = states.nbytes / sum(file.stat().st_size for file in files)
        until = time.monotonic() + 30
        while cached_share(files) < wanted and time.monotonic() < until:
            time.sleep(0.01)
        assert wanted <= cached_share(files) < 1.1 * wanted
        assert same_bits(states, one[[layer]])
