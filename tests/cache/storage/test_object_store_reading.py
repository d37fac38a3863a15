"""A cache on an object store returns the same bits as on a disk, and fetches no other layers."""

import multiprocessing
import pickle
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mser.cache import FeatureCache
from mser.tests.support.cache_entries import FORMS, FOUR, array, same_bits, spec
from mser.tests.support.object_caches import DIM, FRAMES, features, large, write
from mser.tests.support.object_store import ObjectStore

# The same bits ------------------------------------------------------------------------------------


def test_all_formats_hold_the_same_bits_on_a_disk_and_on_an_object_store(
    store: ObjectStore, tmp_path: Path
) -> None:
    bits = np.random.default_rng(0).integers(0, 2**16, (3, 600, 4), "uint16")
    arrays = {
        "any bits": bits.view("float16"),  # no compression makes them smaller
        "zeros": np.zeros((3, 300, 4), "float16"),
        "one frame": array(1, 1),
        "Grüße/日本語": array(2, 257),
    }
    checksums = set()
    for form in FORMS:
        for cache in (
            FeatureCache(tmp_path / "-".join(form)),
            FeatureCache(f"{store.root}/{'-'.join(form)}", store.options),
        ):
            writer = cache.writer(spec(), {}, *form)
            writer.write_shard(0, features(arrays))
            writer.quarantine([])
            writer.publish("0" * 12)
            entry = cache.open("made-up", "some/encoder", modality="speech")
            assert list(entry.ids) == sorted(arrays)
            assert all(same_bits(entry[id], states) for id, states in arrays.items())
            read = entry.read(arrays, [2, 0])
            assert all(same_bits(a, b[[2, 0]]) for a, b in zip(read, arrays.values(), strict=True))
            assert not any(states.flags.writeable for states in read)
            assert entry.quarantine == {}
            assert len(entry.provenance) == 1
            checksums.add(tuple(entry.checksum(id) for id in arrays))
    assert len(checksums) == 1


# Fetched bytes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_only_the_requested_layers_are_fetched(store: ObjectStore, form: tuple[str, str]) -> None:
    arrays = {str(n): large(n) for n in range(8)}
    write(store, arrays, form)
    data = "hidden_states/c/0/0/0" if form[0] == "zarr" else ".h5"
    whole = sum(states.nbytes for states in arrays.values())
    entry = store.cache().open("made-up")
    store.forget()
    assert same_bits(entry["0"], arrays["0"])
    assert store.bytes_of(data) < whole / 2

    store.forget()
    one = arrays["5"][[3]]
    (found,) = entry.read(["5"], [3])
    assert same_bits(found, one)
    assert {(asked.method, asked.path.endswith(data)) for asked in store.asked} <= {("GET", True)}
    assert all(asked.range for asked in store.asked)
    # Compressed features are fetched in whole chunks of 256 frames.
    most = one.nbytes if form[1] == "none" else 3 * 256 * DIM * 2
    assert store.bytes_of(data) <= most

    store.forget()
    assert entry.read(["5"], [])[0].shape == (0, FRAMES, DIM)
    assert store.bytes_of(data) == 0
    (found,) = entry.read(["2"], [0, 5])
    assert same_bits(found, arrays["2"][[0, 5]])
    assert store.bytes_of(data) <= 2 * most


@pytest.mark.usefixtures("both_readers")
@pytest.mark.parametrize("form", FOUR)
def test_utterances_are_fetched_in_parallel_and_a_shard_is_opened_once(
    store: ObjectStore, form: tuple[str, str]
) -> None:
    arrays = {str(n): large(n, 20) for n in range(8)}
    write(store, arrays, form)
    entry = store.cache().open("made-up")
    store.forget()
    with store.failing(lambda _: time.sleep(0.1)):
        found = entry.read(arrays, [1])
    assert all(same_bits(a, b[[1]]) for a, b in zip(found, arrays.values(), strict=True))
    assert store.most_at_once > 2
    metadata = [asked for asked in store.asked if asked.path.endswith("hidden_states/zarr.json")]
    assert len([asked for asked in metadata if asked.method == "GET"]) == (form[0] == "zarr")
    assert len([asked for asked in store.asked if asked.method == "HEAD"]) <= 2


def test_a_small_file_takes_one_request_even_if_it_is_missing(store: ObjectStore) -> None:
    writer = store.cache().writer(spec(), {})
    store.forget()
    assert len(writer.current([])) == 0  # nothing is published
    writer.folder.write("entry.json", b"{}")
    assert writer.folder.read("entry.json") == b"{}"
    assert [asked.method for asked in store.asked] == ["GET", "PUT", "GET"]


# Other processes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "form"),
    [("fork", ("zarr", "none")), ("fork", ("hdf5", "blosc")), ("spawn", ("zarr", "blosc"))],
)
def test_workers_of_a_data_loader_read_an_entry(
    store: ObjectStore, method: str, form: tuple[str, str]
) -> None:
    from torch.utils.data import DataLoader  # noqa: PLC0415 -- seconds to import

    arrays = {str(n): large(n, 4) for n in range(6)}
    write(store, arrays, form)
    entry: Any = store.cache().open("made-up")
    assert same_bits(entry["0"], arrays["0"])  # a connection is open, and must not be shared
    loader: Any = DataLoader(
        entry,
        sampler=[*arrays],
        batch_size=None,
        num_workers=2 if method == "fork" else 1,
        collate_fn=np.array,
        multiprocessing_context=method,
        timeout=60,
    )
    for id, found in zip(arrays, loader, strict=True):
        assert same_bits(found, arrays[id])
    assert same_bits(entry["1"], arrays["1"])


def test_a_fork_opens_connections_of_its_own(store: ObjectStore) -> None:
    write(store, {"a": large(1)})
    entry = store.cache().open("made-up")
    _ = entry["a"]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        theirs = pool.submit(entry.__getitem__, "a")
        for _ in range(5):
            assert same_bits(entry["a"], large(1))
        assert same_bits(theirs.result(60), large(1))


@pytest.mark.usefixtures("both_readers")
def test_threads_share_an_entry(store: ObjectStore) -> None:
    arrays = {str(n): large(n, 4) for n in range(8)}
    write(store, arrays)
    entry = store.cache().open("made-up")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(entry.__getitem__, arrays))
        for few in pool.map(lambda id: entry.read([id, "0"]), arrays):
            assert same_bits(few[1], arrays["0"])
    assert all(same_bits(a, b) for a, b in zip(found, arrays.values(), strict=True))


def test_an_entry_may_be_pickled(store: ObjectStore) -> None:
    write(store, {"a": large(1)})
    entry = store.cache().open("made-up")
    _ = entry["a"]
    content = pickle.dumps(entry)
    assert len(content) < 1000
    assert same_bits(pickle.loads(content)["a"], large(1))
