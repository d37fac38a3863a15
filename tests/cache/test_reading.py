"""A read returns the written bits, in this process and in others."""

import mmap
import multiprocessing
import pickle
import sys
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

from mser import UtteranceDataset
from mser.cache import (
    DamagedError,
    FeatureCache,
    NotFoundError,
    UnknownUtteranceError,
    release_maps,
)
from mser.cache.formats.arrays import LayerIndex, MappedArray
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
from mser.tests.support.page_cache import (
    StillCachedError,
    cached_share,
    drop_from_page_cache,
    resident_bytes,
)

# The same bits ------------------------------------------------------------------------------------


NUMBERS = (12, 0, 6)  # the encoder's own, in the order in which they are stored


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
@given(ragged(), st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=4))
def test_a_read_returns_the_written_bits(
    written: tuple[str, list[dict[str, Array]]], layers: list[int]
) -> None:
    dtype, shards = written
    with tempfile.TemporaryDirectory() as root:
        fill(Path(root), shards, dtype=dtype, layers=NUMBERS)
        entry = FeatureCache(root).open("made-up")
        assert entry.layers == NUMBERS
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
        rows = [NUMBERS.index(layer) for layer in layers]
        assert all(same_bits(a, b[rows]) for a, b in zip(some, arrays.values(), strict=True))


def test_a_shard_of_zeros_is_read_back(tmp_path: Path) -> None:
    zeros = np.zeros((LAYERS, 7, DIM), "float16")
    fill(tmp_path, [{"silence": zeros}])
    assert same_bits(FeatureCache(tmp_path).open("made-up")["silence"], zeros)


def test_an_absent_utterance_is_named(tmp_path: Path) -> None:
    fill(tmp_path, [{"a": array(1)}])
    entry = FeatureCache(tmp_path).open("made-up")
    for read in (lambda: entry["z"], lambda: entry.read(["a", "z"]), lambda: entry.length("z")):
        with pytest.raises(UnknownUtteranceError) as raised:
            read()
        assert str(raised.value) == f"{entry.folder} does not hold the utterance 'z'"
        assert isinstance(raised.value, FileNotFoundError)
        assert isinstance(raised.value, KeyError)


@pytest.mark.parametrize("layer", [5, -1, 13])
def test_an_absent_layer_is_an_error_that_lists_the_stored_ones(tmp_path: Path, layer: int) -> None:
    fill(tmp_path, [{"a": array(1)}], layers=(0, 6, 12))
    entry = FeatureCache(tmp_path).open("made-up")
    for read in (
        lambda: entry.read(["a"], [0, layer]),
        lambda: entry.read([], [layer]),
        lambda: UtteranceDataset(entry, layers=[layer]),
    ):
        with pytest.raises(NotFoundError) as raised:
            read()
        sentence = f"layer {layer} is not in {entry.folder}: it holds layers 0,6,12"
        assert str(raised.value) == sentence
        assert isinstance(raised.value, FileNotFoundError)


def test_a_torch_dataset_takes_the_numbers_of_layers(tmp_path: Path) -> None:
    fill(tmp_path, [{"a": array(1), "b": array(2, 3)}], layers=(0, 6, 12))
    dataset = UtteranceDataset(FeatureCache(tmp_path).open("made-up"), layers=[12, 0])
    assert len(dataset) == 2
    id, states = dataset[1]
    assert id == "b"
    assert same_bits(states, array(2, 3)[[2, 0]])


@pytest.mark.parametrize("error", [UnknownUtteranceError, NotFoundError, DamagedError])
def test_an_error_of_the_cache_may_be_pickled(error: type[Exception]) -> None:
    copy = pickle.loads(pickle.dumps(error("'x' is not in the cache")))
    assert (type(copy), str(copy)) == (error, "'x' is not in the cache")


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
    for layers in ([0], [1, 2], [2, 0]):  # a slice, slices, and a copy
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
def test_a_read_fetches_its_layer_before_the_caller_uses_it_and_nothing_else(store: str) -> None:
    frames, layer = 200_000, 1  # 1.6 MB a layer
    first, second = (array(0, frames) for _ in range(2))
    with tempfile.TemporaryDirectory() as root:  # tmp_path may be in memory
        writer = fill(root, [{"first": first, "second": second}], store=store)
        files = [file for file in (path_of(writer) / "shards").rglob("*") if file.is_file()]
        entry = FeatureCache(root).open("made-up")
        entry.read(["second"], [2])  # opens the shard
        try:
            drop_from_page_cache(path_of(writer) / "shards")
        except StillCachedError as error:
            pytest.skip(str(error))
        (states,) = entry.read(["first"], [layer])
        wanted = states.nbytes / sum(file.stat().st_size for file in files)
        until = time.monotonic() + 30
        while cached_share(files) < wanted and time.monotonic() < until:
            time.sleep(0.01)
        assert wanted <= cached_share(files) < 1.1 * wanted
        assert same_bits(states, first[[layer]])


def test_each_range_is_requested_at_first_and_again_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, [{"a": array(0), "b": array(1)}])
    entry, clock = FeatureCache(tmp_path).open("made-up"), [1000.0]
    requests: list[tuple[Any, int]] = []

    def request(self: MappedArray, layers: LayerIndex, start: int, stop: int) -> None:
        requests.append((layers, start))

    monkeypatch.setattr(MappedArray, "_request", request)
    monkeypatch.setattr("mser.cache.formats.arrays.time.monotonic", lambda: clock[0])
    for _ in range(2):
        entry.read(["a"], [0])
        entry.read(["a"], [1])  # other pages of the same utterance
        entry.read(["a", "b"], [2, 0])
        entry.read(["b"])
    once = [(slice(0, 1), 0), (slice(1, 2), 0), ([2, 0], 0), ([2, 0], 2), (slice(None), 2)]
    assert requests == once
    clock[0] += 60  # the kernel may have dropped the pages
    entry.read(["a"], [0])
    assert requests == [*once, (slice(0, 1), 0)]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
def test_released_maps_are_no_resident_memory_and_stay_readable(tmp_path: Path) -> None:
    written = array(0, 200_000)
    fill(tmp_path, [{"a": written}])
    entry = FeatureCache(tmp_path).open("made-up")
    states = entry["a"]
    assert same_bits(states, written)
    assert resident_bytes(tmp_path) >= states.nbytes
    release_maps()
    assert not resident_bytes(tmp_path)
    assert same_bits(states, written)
    assert resident_bytes(tmp_path) >= states.nbytes
