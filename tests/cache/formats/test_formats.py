"""Zarr and HDF5, uncompressed and compressed, hold the same numbers."""

import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mser.cache import (
    COMPRESSIONS,
    FORMATS,
    Entry,
    EntryWriter,
    FeatureCache,
    UtteranceFeatures,
    verify,
)
from mser.cache.shard import checksum
from mser.tests.support.cache_entries import (
    DIM,
    FORMS,
    LAYERS,
    ODD_IDS,
    Array,
    array,
    fill,
    path_of,
    same_bits,
    spec,
)


def shard_of(entry: Entry | EntryWriter, number: int = 0) -> Path:
    (shard,) = path_of(entry).glob(f"shards/{number:05}-*")
    return shard


# The same bits ------------------------------------------------------------------------------------

ODD_BITS = {  # NaN with a payload, NaN that signals, minus NaN, minus zero, infinity, the smallest
    "float16": [0x7E2A, 0x7D01, 0xFE00, 0x8000, 0x7C00, 0x0001],
    "float32": [0x7FC0002A, 0x7F800001, 0xFFC00000, 0x80000000, 0x7F800000, 0x00000001],
}


@st.composite
def ragged(draw: st.DrawFn) -> tuple[str, list[tuple[str, str, dict[str, Array]]]]:
    """A dtype and shards in different forms, with arrays of any lengths and any bits."""
    dtype = draw(st.sampled_from(sorted(ODD_BITS)))
    unsigned = f"uint{8 * np.dtype(dtype).itemsize}"
    any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    ids = draw(st.lists(st.sampled_from(ODD_IDS) | any_text, min_size=1, max_size=6, unique=True))
    elements = st.integers(0, np.iinfo(unsigned).max) | st.sampled_from(ODD_BITS[dtype])
    shards: list[tuple[str, str, dict[str, Array]]] = []
    for id in ids:
        if not shards or draw(st.booleans()):
            shards.append((*draw(st.sampled_from(FORMS)), {}))
        # Compressed chunks are of 256 frames.
        frames = draw(st.integers(1, 5) | st.sampled_from([255, 256, 257, 600]))
        states = draw(hnp.arrays(unsigned, (LAYERS, frames, DIM), elements=elements))
        if draw(st.booleans()):
            states[draw(st.integers(0, LAYERS - 1))] = 0
        shards[-1][2][id] = states.view(dtype)
    return dtype, shards


@settings(max_examples=40, deadline=None)
@given(ragged(), st.lists(st.integers(0, LAYERS - 1), min_size=1, max_size=4))
def test_a_read_returns_the_written_bits(
    written: tuple[str, list[tuple[str, str, dict[str, Array]]]], layers: list[int]
) -> None:
    dtype, shards = written
    arrays = {id: states for *_, shard in shards for id, states in shard.items()}
    with tempfile.TemporaryDirectory() as root:
        cache = FeatureCache(root)
        for number, (store, compression, shard) in enumerate(shards):
            writer = cache.writer(spec(dtype=dtype), {}, store, compression)
            writer.write_shard(
                number, [UtteranceFeatures(id, f"of {id}", a) for id, a in shard.items()]
            )
        writer.publish("0" * 12)
        entry = cache.open("made-up")
        assert list(entry.ids) == sorted(arrays)
        for id, states in arrays.items():
            assert same_bits(entry[id], states)
            assert entry.checksum(id) == checksum(states)
            assert entry.content_hash(id) == f"of {id}"
        some = entry.read(arrays, layers)
        assert all(same_bits(a, b[layers]) for a, b in zip(some, arrays.values(), strict=True))
        result = verify(writer.folder)
        assert (result.damage, result.shards, result.utterances) == ([], len(shards), len(arrays))


@pytest.mark.parametrize("dtype", sorted(ODD_BITS))
def test_a_checksum_depends_on_the_numbers_and_not_on_the_form(tmp_path: Path, dtype: str) -> None:
    bits = np.resize(ODD_BITS[dtype], LAYERS * 300 * DIM).astype(f"uint{dtype.lstrip('float')}")
    states = bits.reshape(LAYERS, 300, DIM).view(dtype)
    states[1] = 0
    checksums = set()
    for store, compression in FORMS:
        root = tmp_path / f"{store}-{compression}"
        before, after = {"before": array(1, 7).astype(dtype)}, {"after": array(2).astype(dtype)}
        fill(root, [{**before, "x": states, **after}], True, store, compression, dtype=dtype)
        entry = FeatureCache(root).open("made-up")
        assert same_bits(entry["x"], states)
        checksums.add(entry.checksum("x"))
    assert checksums == {checksum(states), checksum(np.asfortranarray(states))}
    assert len(checksums) == 1


@pytest.mark.parametrize(("store", "compression"), FORMS)
def test_an_utterance_is_read_only(tmp_path: Path, store: str, compression: str) -> None:
    fill(tmp_path, [{"a": array(1), "b": array(2, 3)}], True, store, compression)
    entry = FeatureCache(tmp_path).open("made-up")
    for states in (entry["b"], *entry.read(["b"], [0]), *entry.read(["b"], [2, 0])):
        with pytest.raises(ValueError, match="read-only"):
            states[:] = 7
    assert same_bits(entry["b"], array(2, 3))


# The files of a shard -----------------------------------------------------------------------------

ALONE = {
    "zarr": """
import sys
import zarr

group = zarr.open_group(sys.argv[1], mode="r")
rows, states = group.attrs, group["hidden_states"]
""",
    "hdf5": """
import json, sys
import h5py

file = h5py.File(sys.argv[1])
rows, states = json.loads(file["utterances"][()]), file["hidden_states"]
""",
}
PRINTED = """
row = rows["ids"].index(sys.argv[2])
start, length = rows["offsets"][row], rows["lengths"][row]
assert "mser" not in sys.modules
print(states[:, start : start + length].tobytes().hex())
"""


@pytest.mark.parametrize(("store", "compression"), FORMS)
def test_the_library_of_the_format_reads_an_utterance(
    tmp_path: Path, store: str, compression: str
) -> None:
    arrays = {"a": array(1, 3), "ü\n": array(2, 300), "c": array(3, 4)}
    writer = fill(tmp_path, [arrays], True, store, compression)
    plugin = "import hdf5plugin" if store == "hdf5" and compression != "none" else ""
    printed = subprocess.run(
        [sys.executable, "-c", plugin + ALONE[store] + PRINTED, str(shard_of(writer)), "ü\n"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert printed.strip() == arrays["ü\n"].tobytes().hex()


@pytest.mark.parametrize(("store", "compression"), FORMS)
def test_each_layer_has_its_own_chunk(tmp_path: Path, store: str, compression: str) -> None:
    writer = fill(tmp_path, [{"a": array(1, 300), "b": array(2, 1)}], True, store, compression)
    shard = shard_of(writer)
    frames = 301 if compression == "none" else 256  # of a chunk
    if store == "zarr":
        stored: Any = zarr.open_group(shard, mode="r")["hidden_states"]
        assert stored.chunks == (1, frames, DIM)
        assert [file.name for file in (shard / "hidden_states" / "c").rglob("*") if file.is_file()]
        return
    with h5py.File(shard) as file:
        stored = file["hidden_states"]
        assert [dim.label for dim in stored.dims] == ["layer", "frame", "feature"]
        if compression == "none":
            assert stored.chunks is None
            assert stored.id.get_offset() is not None, "one piece, layer after layer"
            return
        assert stored.chunks == (1, frames, DIM)
        (used,) = stored._filters
        filters = {"zstd": hdf5plugin.Zstd.filter_id, "blosc": hdf5plugin.Blosc.filter_id}
        assert used == str(filters[compression])


@pytest.mark.parametrize("compression", ["zstd", "blosc"])
@pytest.mark.parametrize("store", FORMATS)
def test_compression_makes_a_shard_smaller(tmp_path: Path, store: str, compression: str) -> None:
    zeros = {"a": np.zeros((LAYERS, 20000, DIM), "float16")}
    size = [
        fill(tmp_path / how, [zeros], True, store, how).folder.size()
        for how in ("none", compression)
    ]
    assert size[1] < size[0] / 10


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_hdf5_cache_is_json_parquet_and_hdf5_and_unpickles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    fill(tmp_path, [{"a": array(1)}], True, "hdf5", compression)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".parquet", ".h5"}

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("something is unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    assert same_bits(FeatureCache(tmp_path).open("made-up")["a"], array(1))
    assert verify(FeatureCache(tmp_path).open("made-up").folder).damage == []


# Uncompressed: mapped -----------------------------------------------------------------------------


@pytest.mark.parametrize("store", FORMATS)
def test_uncompressed_features_are_mapped(tmp_path: Path, store: str) -> None:
    fill(tmp_path, [{"a": array(1, 3), "b": array(2, 5)}], store=store)
    entry = FeatureCache(tmp_path).open("made-up")
    view, second_view = entry["b"], entry["b"]
    assert not view.flags.owndata
    assert np.shares_memory(view, second_view)
    assert np.shares_memory(view, entry.read(["b"], [1])[0])
    assert not np.shares_memory(view, entry["a"])
    assert same_bits(view, array(2, 5))
    # The file itself is mapped.
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(shard_of(entry)) in maps.read_text()


def bytes_touched(path: Path) -> int:
    """How many bytes of a file are in this process's memory."""
    touched, of_file = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.partition(" ")[0]:
            of_file = line.endswith(str(path))
        elif of_file and line.startswith("Rss:"):
            touched += 1024 * int(line.split()[1])
    return touched


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux")
@pytest.mark.parametrize("store", FORMATS)
def test_reading_one_layer_touches_no_other(tmp_path: Path, store: str) -> None:
    layers, dim = 13, 64
    states = np.zeros((layers, 24576, dim), "float16")
    states += np.arange(layers, dtype="float16")[:, None, None]
    writer = fill(tmp_path, [{"a": states}], store=store, layers=tuple(range(layers)), dim=dim)
    shard = shard_of(writer)
    data = shard if store == "hdf5" else shard / "hidden_states/c/0/0/0"
    (layer,) = FeatureCache(tmp_path).open("made-up").read(["a"], [6])
    margin = 2 * 2**21  # bytes; a page may have 2 MiB
    assert bytes_touched(data) <= margin
    assert (layer == 6).all()
    assert layer.nbytes <= bytes_touched(data) <= layer.nbytes + margin < states.nbytes / 5


MANY = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from mser.cache import FeatureCache

entry = FeatureCache(sys.argv[1]).open("made-up")
for epoch in range(2):
    for id in entry.ids:
        assert entry[id][0, 0, 0] == int(id)
views = entry.read(entry.ids)  # of all shards at once
assert [states[0, 0, 0] for states in views] == [int(id) for id in entry.ids]
print(len(views))
"""


@pytest.mark.parametrize(("store", "compression"), [*FORMS[::3], ("zarr", "zstd")])
def test_an_entry_may_have_more_shards_than_a_process_may_open_files(
    tmp_path: Path, store: str, compression: str
) -> None:
    count = 70
    fill(tmp_path, [{f"{n:03}": array(n)} for n in range(count)], True, store, compression)
    command = [sys.executable, "-c", MANY, str(tmp_path)]
    read = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (read.returncode, read.stdout.strip()) == (0, str(count)), read.stderr
