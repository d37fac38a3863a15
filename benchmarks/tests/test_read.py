"""The reading benchmark compares methods that read the same features."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from mser.benchmarks import read_peers
from mser.benchmarks.read import Sizes, measure_batches, measure_epoch
from mser.benchmarks.read_methods import MEMORY_MAP, METHODS, MSER, OpenStore
from mser.benchmarks.read_speed import (
    BATCH,
    WeightedSum,
    check_equal,
    copying_reader,
    draw_requests,
    measure_speeds,
    one_layer,
    requested_bytes,
)
from mser.benchmarks.results import RunOptions, shuffled_turns
from mser.benchmarks.synthetic_features import LAYERS, Array, draw_layout, draw_shards
from mser.tests.support.page_cache import StillCachedError, cached_share, drop_from_page_cache

LAYOUT = draw_layout(0.012)
TINY = Sizes(0.02, 0.0, 1, 2, 10)
OPTIONS = RunOptions(True, 2, torch.device("cpu"), None, None, log=lambda line: None)
ALL_METHODS = {
    **METHODS,
    **{name: method for peer in read_peers.PEERS.values() for name, method in peer.items()},
}


@pytest.fixture(scope="module")
def states() -> list[Array]:
    """The hidden states of each utterance."""
    return [utterance.hidden_states for shard in draw_shards(LAYOUT) for utterance in shard]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the stores of all methods."""
    return tmp_path_factory.mktemp("stores")


def open_store(name: str, folder: Path) -> OpenStore:
    for package, methods in read_peers.PEERS.items():
        if name in methods:
            pytest.importorskip(package)
    method = ALL_METHODS[name]
    if not (folder / method.store).exists():
        (folder / method.store).mkdir()
        method.write(folder / method.store, LAYOUT)
    return method.open(folder / method.store, LAYOUT)


def ones(shape: tuple[int, ...], dtype: str) -> OpenStore:
    return OpenStore(lambda batch, layers: [np.ones(shape, dtype) for _ in batch], True)


@pytest.mark.parametrize("name", ALL_METHODS)
def test_every_method_reads_the_features_that_were_written(
    name: str, stores: Path, states: list[Array]
) -> None:
    store = open_store(name, stores)
    for batch in ([3], [2, 0, 2, 1], list(range(len(states)))):
        for layers in (slice(None), one_layer(0), one_layer(LAYERS - 1)):
            read = [np.array(utterance) for utterance in store.get(batch, layers)]
            for index, utterance in zip(batch, read, strict=True):
                assert utterance.dtype == np.float16
                np.testing.assert_array_equal(utterance, states[index][layers])


@pytest.mark.parametrize("name", ALL_METHODS)
def test_every_method_leaves_a_private_copy(name: str, stores: Path, states: list[Array]) -> None:
    store = open_store(name, stores)
    if store.returns_copies:
        (first,) = store.get([1], slice(None))
        copy = np.asarray(first)
        copy[...] = 0  # this must change neither the store nor the next copy
        (second,) = store.get([1], slice(None))
        np.testing.assert_array_equal(second, states[1])
    else:
        copying_reader(store, LAYOUT)([1, 0], slice(None))


@pytest.mark.parametrize("name", ALL_METHODS)
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_weighted_sums_are_equal(name: str, stores: Path, states: list[Array]) -> None:
    weighted_sum = WeightedSum(LAYOUT, torch.device("cpu"))
    weights = weighted_sum.weights[0].double().numpy()
    assert weights.sum() == pytest.approx(1)
    for index, read in enumerate(open_store(name, stores).get(list(range(4)), slice(None))):
        expected = np.tensordot(weights, states[index].astype("float64"), 1)
        np.testing.assert_allclose(weighted_sum(read)[0], expected.ravel(), atol=1e-5)


def test_a_method_that_returns_other_numbers_is_found() -> None:
    right = ones((1, 2, 3), "float16")
    zeros = OpenStore(lambda batch, layers: [np.zeros((1, 2, 3), "float16") for _ in batch], True)
    check_equal({"first": right, "other": right}, LAYOUT)
    for wrong in (zeros, ones((1, 2, 3), "float32")):
        with pytest.raises(AssertionError, match="other"):
            check_equal({"first": right, "other": wrong}, LAYOUT)


def test_requests_count_the_bytes_that_they_request(stores: Path) -> None:
    store = open_store(MEMORY_MAP, stores)
    for single in (True, False):
        for batch, layers, count in draw_requests(LAYOUT, single, seed=1, count=3):
            assert len(batch) == BATCH
            assert count == requested_bytes(LAYOUT, batch, layers)
            assert count == sum(states.nbytes for states in store.get(batch, layers))


def test_each_round_has_every_name_in_another_order() -> None:
    turns = shuffled_turns(["a", "b", "c"], 4)
    orders = [tuple(name for n, name in turns if n == number) for number in range(4)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(set(orders)) > 1


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_each_table_has_a_row_for_each_method(stores: Path) -> None:
    opened = {name: open_store(name, stores) for name in (MEMORY_MAP, MSER)}
    tables = [
        *measure_batches(opened, LAYOUT, TINY, OPTIONS),
        *measure_epoch(opened, LAYOUT, TINY, OPTIONS),
    ]
    assert [list(table.rows) for table in tables] == [list(opened)] * 5
    assert len({table.title for table in tables}) == len(tables)
    for table in tables:
        assert "synthetic" in table.title
        assert table.plot is not None
        assert table.plot.column in next(iter(table.rows.values()))
        assert table.markdown()
        json.dumps(asdict(table))


def test_speeds_are_measured_once_in_each_round(stores: Path) -> None:
    readers = {"a": copying_reader(open_store(MEMORY_MAP, stores), LAYOUT)}
    speeds = measure_speeds(readers, LAYOUT, True, 0.0, rounds=3)
    assert [len(measured) for measured in speeds.values()] == [3]


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="Linux")
def test_dropped_files_are_not_in_the_page_cache() -> None:
    with TemporaryDirectory() as folder:  # tmp_path may be in memory, where files stay cached
        file = Path(folder) / "file"
        file.write_bytes(bytes(2**20))
        assert cached_share([file]) == 1
        try:
            drop_from_page_cache(Path(folder))
        except StillCachedError as error:
            pytest.skip(str(error))
        assert cached_share([file]) == 0


def test_a_missing_peer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(read_peers, "import_module", absent)
    methods, missing = read_peers.available_methods()
    assert methods == METHODS
    assert missing == {name: f"No module named '{name}'" for name in ("lhotse", "datasets")}
