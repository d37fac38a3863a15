"""Entries of bfloat16 and int8: what is stored, what is read, and what a stranger reads."""

import json
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 -- h5py needs it to read a compressed shard
import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mser.cache import CacheError, FeatureCache, UtteranceFeatures, convert, pooled_entry
from mser.cache.dtypes import bfloat16_bits, from_bfloat16
from mser.cache.torch_dataset import padded
from mser.tests.support.cache_entries import FORMS, Array, fill, path_of, same_bits, spec

LAYERS, DIM = 3, 6
UNITS = np.array([1e-3, 1, 1, 50, 1, 1], "f4")  # the dimensions differ in unit and offset
OFFSETS = np.array([0, 7, 0, -400, 0, 0], "f4")


def states_of(seed: int, frames: int) -> Array:
    """Made-up hidden states; the fourth dimension of the last layer is constant."""
    rng = np.random.default_rng(seed)
    states: Array = rng.standard_normal((LAYERS, frames, DIM), "f4") * UNITS + OFFSETS
    states[2, :, 3] = -400
    return states


UTTERANCES = {f"u{seed}": states_of(seed, 4 + seed) for seed in range(12)}


def shards_of(*parts: list[str]) -> list[dict[str, Array]]:
    return [{id: UTTERANCES[id] for id in part} for part in parts]


ALL = [*UTTERANCES]
TWO = shards_of(ALL[:5], ALL[5:])


def stored_alone(shard: Path, id: str) -> Array:
    """Read what a shard holds of an utterance with zarr-python or h5py alone."""
    if shard.is_dir():
        group: Any = zarr.open_group(shard, mode="r")
        facts, read = group.attrs, group["hidden_states"]
        row = facts["ids"].index(id)
        start = facts["offsets"][row]
        return np.asarray(read[:, start : start + facts["lengths"][row]])
    with h5py.File(shard) as file:
        facts = json.loads(file["utterances"][()])
        row = facts["ids"].index(id)
        start = facts["offsets"][row]
        states: Array = file["hidden_states"][:, start : start + facts["lengths"][row]]
        return states


def by_the_formula(codes: Array, scale: Any) -> Array:
    """Decode as docs/smaller-caches.md says."""
    offset, step, growth = (
        scale[name][:, None].astype("f8") for name in ("offset", "step", "growth")
    )
    size = np.abs(codes.astype("f8"))
    steps = np.where(size <= 96, size, 96 * growth ** np.maximum(size - 96, 0))
    states: Array = offset + step * np.sign(codes) * steps
    return states


# bfloat16 -----------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(hnp.arrays("u4", st.integers(1, 30)))
def test_bfloat16_rounds_as_torch_does(bits: Array) -> None:
    numbers = bits.view("f4")
    expected = torch.from_numpy(numbers).to(torch.bfloat16).float().numpy()
    finite = np.isfinite(expected)
    ours = from_bfloat16(bfloat16_bits(numbers))
    np.testing.assert_array_equal(ours[finite], expected[finite])
    np.testing.assert_array_equal(np.signbit(ours[finite]), np.signbit(expected[finite]))
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(numbers))
    np.testing.assert_array_equal(np.isinf(ours), np.isinf(numbers))  # a finite number stays finite


@pytest.mark.parametrize(("store", "compression"), FORMS)
def test_bfloat16_is_read_as_its_own_numbers(tmp_path: Path, store: str, compression: str) -> None:
    writer = fill(tmp_path, TWO, True, store, compression, dtype="bfloat16", dim=DIM)
    entry = FeatureCache(tmp_path).open("made-up")
    for id, states in UTTERANCES.items():
        expected = torch.from_numpy(states).to(torch.bfloat16).float().numpy()
        assert same_bits(entry[id], expected)
        assert same_bits(entry.read([id], [2, 0])[0], expected[[2, 0]])
    stored = stored_alone(path_of(writer) / "shards" / writer.shards()[0], "u1")
    assert stored.dtype == np.uint16
    shifted = (stored.astype("u4") << 16).view("f4")  # as the page says
    assert same_bits(shifted, entry["u1"])


# int8 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("store", "compression"), FORMS)
def test_a_stranger_decodes_int8_by_the_formula(
    tmp_path: Path, store: str, compression: str
) -> None:
    writer = fill(tmp_path, TWO, True, store, compression, dtype="int8", dim=DIM)
    entry = FeatureCache(tmp_path).open("made-up")
    scale = np.load(path_of(entry) / "scale.npz", allow_pickle=False)
    for shard, part in zip(sorted(writer.shards()), TWO, strict=True):
        for id, states in part.items():
            codes = stored_alone(path_of(entry) / "shards" / shard, id)
            assert codes.dtype == np.int8
            read = entry[id]
            assert read.dtype == np.float32
            assert not read.flags.writeable
            np.testing.assert_allclose(read, by_the_formula(codes, scale), rtol=1e-5, atol=1e-5)
            even = np.abs(codes) < 96
            half = np.broadcast_to(scale["step"][:, None] / 2, states.shape)
            slack = 1e-6 * np.abs(states)
            assert (np.abs(read - states) <= half * 1.0001 + slack)[even].all()
            assert same_bits(entry.read([id], [2, 0])[0], read[[2, 0]])
            assert same_bits(entry.read([id], [1])[0], read[[1]])
    padded_states, lengths = padded(entry.read(["u0", "u3"]))
    assert (padded_states.dtype, lengths.tolist()) == (torch.float32, [4, 7])


def test_int8_resolves_a_deviation_into_many_steps_in_every_dimension(tmp_path: Path) -> None:
    fill(tmp_path, TWO, dtype="int8", dim=DIM)
    scale = FeatureCache(tmp_path).open("made-up").scale
    assert scale is not None
    spread = np.broadcast_to(UNITS, (LAYERS, DIM))
    assert (scale.step < spread / 15).all()  # an error of a step's 1/√12 is under 2 % of it


def test_a_number_far_outside_the_calibration_keeps_its_size(tmp_path: Path) -> None:
    far = states_of(99, 3)
    far[1, 0, 1], far[1, 1, 1] = 7 + 40, 7 - 25  # 40 and 25 deviations from the mean
    writer = fill(tmp_path, TWO, publish=False, dtype="int8", dim=DIM)
    writer.write_shard(2, [UtteranceFeatures("far", "h", far)])
    writer.publish("0" * 12)
    read = FeatureCache(tmp_path).open("made-up")["far"]
    assert read[1, 0, 1] == pytest.approx(7 + 40, abs=0.06 * 40)
    assert read[1, 1, 1] == pytest.approx(7 - 25, abs=0.06 * 25)


def test_an_outlier_of_the_calibration_makes_no_step_larger(tmp_path: Path) -> None:
    outlier = {id: states.copy() for id, states in UTTERANCES.items()}
    outlier["u4"][0, 0, 4] = 3000.0  # such as a massive activation of one token
    fill(tmp_path / "with", [outlier], dtype="int8", dim=DIM)
    fill(tmp_path / "without", [UTTERANCES], dtype="int8", dim=DIM)
    first, second = (FeatureCache(tmp_path / name).open("made-up") for name in ("with", "without"))
    assert first.scale is not None
    assert second.scale is not None
    ratio = first.scale.step / second.scale.step
    assert ratio.max() < 1.3  # also in the dimension of the outlier
    assert first["u4"][0, 0, 4] == pytest.approx(3000, rel=0.15)


def test_int8_takes_half_the_bytes_of_float16(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shard = {f"u{n}": rng.standard_normal((LAYERS, 500, 64), "f4") for n in range(3)}
    sizes = {}
    for dtype in ("float16", "bfloat16", "int8"):
        entry = fill(tmp_path / dtype, [shard], dtype=dtype, dim=64)
        files = [f for f in path_of(entry).rglob("*") if f.is_file() and f.parent.name != "runs"]
        sizes[dtype] = sum(f.stat().st_size for f in files if f.name not in ("entry.json",))
    assert sizes["int8"] <= 0.52 * sizes["float16"]
    assert sizes["bfloat16"] <= 1.001 * sizes["float16"]


def test_the_first_scale_counts_for_all_writers(tmp_path: Path) -> None:
    first = FeatureCache(tmp_path).writer(spec(dtype="int8", dim=DIM), {})
    second = FeatureCache(tmp_path).writer(spec(dtype="int8", dim=DIM), {})
    mine = first.scale(lambda: [UTTERANCES["u1"], UTTERANCES["u2"]])
    theirs = second.scale(lambda: pytest.fail("the entry has a scale"))
    assert mine is not None
    assert theirs is not None
    assert theirs.digest == mine.digest
    assert not first.lacks_scale
    for number, (writer, part) in enumerate(zip((first, second), TWO, strict=True)):
        writer.write_shard(
            number, [UtteranceFeatures(id, id, states) for id, states in part.items()]
        )
    second.publish("0" * 12)
    # Other shards, another store and another order, and the same codes.
    other = FeatureCache(tmp_path / "other").writer(spec(dtype="int8", dim=DIM), {}, "hdf5")
    other.scale(lambda: [UTTERANCES["u1"], UTTERANCES["u2"]])
    for number, id in enumerate(reversed(ALL)):
        other.write_shard(number, [UtteranceFeatures(id, id, UTTERANCES[id])])
    other.publish("0" * 12)
    entries = [FeatureCache(root).open("made-up") for root in (tmp_path, tmp_path / "other")]
    assert [entries[0].checksum(id) for id in ALL] == [entries[1].checksum(id) for id in ALL]
    contents = [(path_of(entry) / "scale.npz").read_bytes() for entry in entries]
    assert contents[0] == contents[1]


def test_a_conversion_keeps_the_codes(tmp_path: Path) -> None:
    fill(tmp_path, TWO, dtype="int8", dim=DIM)
    entry = FeatureCache(tmp_path).open("made-up")
    before = {id: (entry.checksum(id), entry[id].copy()) for id in ALL}
    convert(entry, "hdf5", "blosc")
    after = FeatureCache(tmp_path).open("made-up")
    assert all(after.checksum(id) == before[id][0] for id in ALL)
    assert all(same_bits(after[id], before[id][1]) for id in ALL)


def test_pooled_features_of_int8_are_those_of_the_numbers_that_are_read(tmp_path: Path) -> None:
    fill(tmp_path, TWO, dtype="int8", dim=DIM)
    cache = FeatureCache(tmp_path)
    entry = cache.open("made-up")
    pooled = pooled_entry(cache, entry)
    for id in ALL:
        expected = entry[id].astype("f8").mean(axis=1)
        np.testing.assert_allclose(pooled[id][:, 0, :DIM], expected, rtol=1e-6, atol=1e-6)


def test_int8_refuses_numbers_that_are_not_finite(tmp_path: Path) -> None:
    states = states_of(0, 3)
    states[0, 0, 0] = np.inf
    with pytest.raises(CacheError, match=r"'bad' contain infinite values or NaN"):
        fill(tmp_path, [{"bad": states}], dtype="int8", dim=DIM)


def test_an_object_store_returns_the_same_numbers(tmp_path: Path) -> None:
    fill(tmp_path, TWO, dtype="int8", dim=DIM)
    url = f"memory://dtypes-{tmp_path.name}"
    fill(url, TWO, dtype="int8", dim=DIM)
    local, remote = (FeatureCache(root).open("made-up") for root in (tmp_path, url))
    for layers in ([2], [2, 0], None):
        pairs = zip(local.read(ALL, layers), remote.read(ALL, layers), strict=True)
        assert all(same_bits(a, b) for a, b in pairs)
