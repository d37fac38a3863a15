"""Forged HDF5 shards are refused with a reason, and other shards stay readable."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mser.cache import CacheError, Entry, verify
from mser.tests.support.cache_entries import DIM, LAYERS, array, path_of, same_bits
from mser.tests.support.hostile_caches import Edit, make, refused, survive

pytestmark = [pytest.mark.usefixtures("unpickled"), pytest.mark.exhaustive]

# Shards of HDF5 -----------------------------------------------------------------------------------


def hdf5_shard(entry: Path) -> Path:
    (file,) = entry.glob("shards/00000-*.h5")
    return file


def instead(array: Callable[[Any, Path], object], name: str = "hidden_states") -> Edit:
    """Replace a dataset."""

    def edit(shard: Path) -> None:
        with h5py.File(shard, "a") as file:
            del file[name]
            array(file, shard.parents[4] / "outside")

    return edit


SHAPE = (LAYERS, 4, DIM)


def other_file(outside: Path) -> Path:
    """Features in a file that is not the shard."""
    path = outside.parent / "elsewhere.h5"
    with h5py.File(path, "w") as file:
        file["hidden_states"] = np.full(SHAPE, 99, "float16")
        file["utterances"] = "{}"
    return path


def virtual(file: Any, outside: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, "<f2")
    layout[:] = h5py.VirtualSource(other_file(outside), "hidden_states", SHAPE)
    file.create_virtual_dataset("hidden_states", layout)


def unknown_filter(file: Any, outside: Path) -> None:
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk(SHAPE)
    created.set_filter(300, h5py.h5z.FLAG_OPTIONAL, (1, 2))
    space = h5py.h5s.create_simple(SHAPE)
    kind = h5py.h5t.py_create(np.dtype("<f2"))
    h5py.h5d.create(file.id, b"hidden_states", kind, space, created)


def linked_within(file: Any, outside: Path) -> None:
    file["other"] = np.full(SHAPE, 99, "float16")
    file["hidden_states"] = h5py.SoftLink("/other")


def of_type(dtype: Any, shape: tuple[int, ...] = SHAPE) -> Edit:
    return instead(lambda file, _: file.create_dataset("hidden_states", shape, dtype))


def stored(**how: Any) -> Edit:
    data = np.full(SHAPE, 99, "float16")
    return instead(lambda file, _: file.create_dataset("hidden_states", data=data, **how))


def external(name: str) -> Edit:
    """Raw data in another file."""

    def create(file: Any, outside: Path) -> None:
        where = [(str(outside / "secret"), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset(name, SHAPE, "<f2", external=where)

    return instead(create, name)


def link_abroad(name: str) -> Edit:
    return instead(
        lambda file, outside: file.__setitem__(name, h5py.ExternalLink(other_file(outside), name)),
        name,
    )


def put_hdf5(value: object, name: str = "hidden_states") -> Edit:
    return instead(lambda file, _: file.__setitem__(name, value), name)


def folder(shard: Path) -> None:
    shard.unlink()
    shard.mkdir()


def link(to: str) -> Edit:
    def edit(shard: Path) -> None:
        shard.unlink()
        shard.symlink_to(shard.name if to == "itself" else to)

    return edit


HDF5: dict[str, Edit] = {
    "external link": link_abroad("hidden_states"),
    "external storage": external("hidden_states"),
    "soft link": instead(linked_within),
    "dangling link": put_hdf5(h5py.SoftLink("/x")),
    "virtual": instead(virtual),
    "group": instead(lambda file, _: file.create_group("hidden_states")),
    "missing": instead(lambda *_: None),
    "text": of_type(h5py.string_dtype()),
    "opaque": of_type(np.dtype("V2")),
    "references": of_type(h5py.ref_dtype),
    "regions": of_type(h5py.regionref_dtype),
    "ragged": of_type(h5py.vlen_dtype("float16")),
    "compound": of_type(np.dtype([("a", "<f2")])),
    "enumeration": of_type(h5py.enum_dtype({"a": 1})),
    "subarray": of_type(np.dtype(("<f2", (2,)))),
    "int": of_type("<i2"),
    "double": of_type("<f8"),
    "complex": of_type("<c8"),
    "big": of_type(">f2"),
    "flat": of_type("<f2", (LAYERS, 4)),
    "deep": of_type("<f2", (*SHAPE, 1)),
    "scalar": of_type("<f2", ()),
    "no frames": of_type("<f2", (LAYERS, 0, DIM)),
    "no space": put_hdf5(h5py.Empty("<f2")),
    "other width": of_type("<f2", (LAYERS, 4, DIM + 1)),
    "deflate": stored(compression="gzip"),
    "lzf": stored(compression="lzf"),
    "shuffle": stored(shuffle=True),
    "unknown filter": instead(unknown_filter),
    "nothing": lambda shard: shard.write_bytes(b""),
    "no HDF5": lambda shard: shard.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 1000),
    "a text": lambda shard: shard.write_text("[]"),
    "pickle": lambda shard: shard.write_bytes(pickle.dumps([1])),
    "folder": folder,
    "link": link("../../../../outside/secret"),
    "link to itself": link("itself"),
}


@pytest.mark.parametrize("edit", HDF5.values(), ids=HDF5)
def test_a_forged_hdf5_shard_is_refused(tmp_path: Path, outside: Path, edit: Edit) -> None:
    writer = make(tmp_path, "hdf5")
    shard = hdf5_shard(path_of(writer))
    edit(shard)
    entry = Entry(writer.folder)
    assert shard.name in refused(lambda: entry["a"])
    assert shard.name in refused(lambda: entry.read(["b"], [0]))
    assert same_bits(entry["c"], array(3)), "the other shard is whole"
    survive(writer)
    assert same_bits(Entry(writer.folder)["c"], array(3))
    assert outside.exists()


def huge_text(file: Any, _: Path) -> None:
    file.create_dataset("utterances", (10**15,), h5py.string_dtype(), chunks=(1000,))


ROWS: dict[str, Edit] = {
    "external link": link_abroad("utterances"),
    "external storage": external("utterances"),
    "missing": instead(lambda *_: None, "utterances"),
    "group": instead(lambda file, _: file.create_group("utterances"), "utterances"),
    "huge": instead(huge_text, "utterances"),
    "number": put_hdf5(3, "utterances"),
    "empty": put_hdf5(h5py.Empty("S1"), "utterances"),
    "no JSON": put_hdf5("x", "utterances"),
    "no object": put_hdf5("[]", "utterances"),
    "deep": put_hdf5("[" * 100_000, "utterances"),
    "pickle": put_hdf5(np.void(pickle.dumps({"ids": ["a"]})), "utterances"),
}


@pytest.mark.parametrize("edit", ROWS.values(), ids=ROWS)
def test_forged_rows_of_an_hdf5_shard_leave_other_shards_readable(
    tmp_path: Path, outside: Path, edit: Edit
) -> None:
    writer = make(tmp_path, "hdf5")
    edit(hdf5_shard(path_of(writer)))
    for file in path_of(writer).glob("index-*"):
        file.unlink()
    assert writer.committed().keys() == {"c"}
    writer.publish("1" * 12)
    entry = Entry(writer.folder)
    assert list(entry.ids) == ["c"]
    assert same_bits(entry["c"], array(3))
    survive(writer)
    assert outside.exists()


def test_a_dataset_that_was_never_written_is_damage(tmp_path: Path) -> None:
    """HDF5 returns zeros for a dataset that was never written."""
    writer = make(tmp_path, "hdf5")
    of_type("<f2")(hdf5_shard(path_of(writer)))
    with pytest.raises(CacheError, match="it has no data"):
        assert Entry(writer.folder)["a"].size
    assert verify(writer.folder).damage[0].lost == ("a", "b")
