"""What the benchmark of the reading compares is the same reading."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from mser.benchmarks import read_peers
from mser.benchmarks.read import Sizes, batches, epoch
from mser.benchmarks.read_methods import CONTENDERS, MEMORY_MAP, OURS, Way
from mser.benchmarks.read_speed import (
    BATCH,
    Sums,
    agree,
    asked_bytes,
    copies,
    draw_requests,
    one_layer,
    speeds,
)
from mser.benchmarks.results import Asked, turns
from mser.benchmarks.synthetic_features import LAYERS, Array, draw_shards, draw_utterances
from mser.tests.support.page_cache import StillCachedError, cached_share, drop_from_page_cache

FSYNC = os.fsync  # before any test replaces it
MADE = draw_utterances(0.012)
TINY = Sizes(0.02, 0.0, 1, 2, 10)
ASKED = Asked(True, 2, torch.device("cpu"), None, None, say=lambda line: None)
EVERY = {
    **CONTENDERS,
    **{name: one for found in read_peers.PEERS.values() for name, one in found.items()},
}


@pytest.fixture(scope="module")
def states() -> list[Array]:
    return [one.hidden_states for shard in draw_shards(MADE) for one in shard]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


def opened(name: str, folder: Path) -> Way:
    for package, found in read_peers.PEERS.items():
        if name in found:
            pytest.importorskip(package)
    contender = EVERY[name]
    if not (folder / contender.store).exists():
        (folder / contender.store).mkdir()
        contender.write(folder / contender.store, MADE)
    return contender.open(folder / contender.store, MADE)


@pytest.mark.parametrize("name", EVERY)
def test_every_way_gives_the_features_that_were_written(
    name: str, stores: Path, states: list[Array]
) -> None:
    way = opened(name, stores)
    for batch in ([3], [2, 0, 2, 1], list(range(len(states)))):
        for layers in (slice(None), one_layer(0), one_layer(LAYERS - 1)):
            found = [np.array(one) for one in way.get(batch, layers)]
            for at, one in zip(batch, found, strict=True):
                assert one.dtype == np.float16
                np.testing.assert_array_equal(one, states[at][layers])


@pytest.mark.parametrize("name", EVERY)
def test_every_way_leaves_a_copy_of_its_own(name: str, stores: Path, states: list[Array]) -> None:
    way = opened(name, stores)
    if way.fresh:
        (first,) = way.get([1], slice(None))
        kept = np.asarray(first)
        kept[...] = 0  # neither the store nor the next copy may change with it
        (again,) = way.get([1], slice(None))
        np.testing.assert_array_equal(again, states[1])
    else:
        copies(way, MADE)([1, 0], slice(None))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_weighted_sums_are_equal(name: str, stores: Path, states: list[Array]) -> None:
    sums = Sums(MADE, torch.device("cpu"))
    weights = sums.weights[0].double().numpy()
    assert weights.sum() == pytest.approx(1)
    for at, one in enumerate(opened(name, stores).get(list(range(4)), slice(None))):
        right = np.tensordot(weights, states[at].astype("float64"), 1)
        np.testing.assert_allclose(sums.one(one)[0], right.ravel(), atol=1e-5)


def test_a_way_that_gives_other_numbers_is_found() -> None:
    right = Way(lambda batch, layers: [np.ones((1, 2, 3), "float16") for _ in batch], True)
    wrong = Way(lambda batch, layers: [np.zeros((1, 2, 3), "float16") for _ in batch], True)
    wider = Way(lambda batch, layers: [np.ones((1, 2, 3), "float32") for _ in batch], True)
    agree({"one": right, "other": right}, MADE)
    for other in (wrong, wider):
        with pytest.raises(AssertionError, match="other"):
            agree({"one": right, "other": other}, MADE)


def test_requests_say_how_many_bytes_they_ask_for(stores: Path) -> None:
    way = opened(MEMORY_MAP, stores)
    for single in (True, False):
        for batch, layers, count in draw_requests(MADE, single, seed=1, count=3):
            assert len(batch) == BATCH
            assert count == asked_bytes(MADE, batch, layers)
            assert count == sum(one.nbytes for one in way.get(batch, layers))


def test_each_round_takes_all_in_another_order() -> None:
    taken = turns(["a", "b", "c"], 4)
    orders = [tuple(name for number, name in taken if number == its) for its in range(4)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(set(orders)) > 1


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_the_sections_have_a_row_for_each_way(stores: Path) -> None:
    ways = {name: opened(name, stores) for name in (MEMORY_MAP, OURS)}
    tables = [*batches(ways, MADE, TINY, ASKED), *epoch(ways, MADE, TINY, ASKED)]
    assert [list(table.rows) for table in tables] == [list(ways)] * 5
    assert len({table.title for table in tables}) == len(tables)
    for table in tables:
        assert "synthetic" in table.title
        assert table.plot is not None
        assert table.plot.column in next(iter(table.rows.values()))
        assert table.markdown()
        json.dumps(asdict(table))


def test_speeds_are_measured_once_a_round(stores: Path) -> None:
    reads = {"a": copies(opened(MEMORY_MAP, stores), MADE)}
    assert [len(one) for one in speeds(reads, MADE, True, 0.0, rounds=3).values()] == [3]


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="Linux")
def test_what_is_dropped_is_no_longer_in_the_page_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", FSYNC)
    with TemporaryDirectory() as folder:  # tmp_path may lie in memory, where nothing can be dropped
        file = Path(folder) / "file"
        file.write_bytes(bytes(2**20))
        assert cached_share([file]) == 1
        try:
            drop_from_page_cache(Path(folder))
        except StillCachedError as error:
            pytest.skip(str(error))
        assert cached_share([file]) == 0


def test_a_peer_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(read_peers, "import_module", absent)
    found, missing = read_peers.contenders()
    assert found == CONTENDERS
    assert missing == {name: f"No module named '{name}'" for name in ("lhotse", "datasets")}
