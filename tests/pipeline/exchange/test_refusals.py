"""Utterances that go to quarantine, and sources that are refused with one sentence."""

import io
import json
import pickle
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mser.cache import CacheError, FeatureCache
from mser.pipeline.errors import UsageError
from mser.pipeline.exchange import import_features
from mser.tests.support.exchange_files import (
    DIM,
    IDS,
    Array,
    as_emotion2vec,
    as_folder,
    as_npz,
    assert_same,
    concatenated,
    entry_of,
    features,
    manifest,
    refusal,
    settings,
)

# One utterance ------------------------------------------------------------------------------------


def not_finite(array: Array) -> Array:
    return np.where(np.arange(array.size).reshape(array.shape) == 3, np.nan, array)


def infinite(array: Array) -> Array:
    return np.where(np.arange(array.size).reshape(array.shape) == 3, -np.inf, array)


@pytest.mark.parametrize(
    ("spoil", "reason", "words"),
    [
        (not_finite, "not-finite", "NaN or infinite"),
        (infinite, "not-finite", "NaN or infinite"),
        (lambda array: array[:, :0], "empty", "without frames"),
        (
            lambda array: array[..., :-1],
            "shape",
            "2 layers of width 5, but most have 2 layers",
        ),
        (
            lambda array: array[:1],
            "shape",
            "1 layers of width 6, but most have 2 layers of",
        ),
        (lambda array: array.ravel(), "shape", "neither (frames, dim) nor (layers, frames, dim)"),
        (lambda array: array.astype("complex64"), "not-float", "it contains complex64"),
        (lambda array: array > 0, "not-float", "it contains bool"),
        (lambda array: array.astype(object), "pickled", "it contains pickled objects, which are"),
    ],
)
def test_a_bad_utterance_goes_to_quarantine(
    tmp_path: Path, spoil: Callable[[Array], Array], reason: str, words: str
) -> None:
    arrays = features()
    bad, good = IDS[0], {id: array for id, array in arrays.items() if id != IDS[0]}
    source = as_folder(tmp_path / "features", {**arrays, bad: spoil(arrays[bad])})
    summary = import_features(settings(tmp_path, source))
    entry = entry_of(tmp_path)
    assert_same(entry, good, "float32")
    (quarantined,) = summary.quarantined
    assert (quarantined.id, quarantined.reason) == (bad, reason)
    assert words in quarantined.detail
    assert entry.quarantine == {bad: quarantined}
    assert f"'{bad}' {reason}: " in str(summary)
    assert summary.missing == []  # an utterance in quarantine is not missing

    as_folder(source, {bad: arrays[bad]})
    summary = import_features(settings(tmp_path, source))
    assert (summary.new, summary.present, summary.quarantined) == (1, 63, [])
    assert_same(entry_of(tmp_path), arrays, "float32")
    assert entry_of(tmp_path).quarantine == {}


def with_shape(content: bytes, shape: bytes) -> bytes:
    """Change the shape in the header of a file, and nothing else."""
    return content.replace(b"(2, 2, 6), }".ljust(len(shape)), shape.ljust(12))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:40],
        lambda content: b"",
        lambda content: b"not NumPy's at all",
        lambda content: with_shape(content, b"(2, -2, 6), }"),
        lambda content: with_shape(content, b"(99999999999, 2, 6), }"),
        lambda content: with_shape(content, b"(4294967296, 4294967296, 6), }"),
        lambda content: with_shape(content, b"(2, 2, 6), 'and': open('x')}"),
    ],
)
def test_a_damaged_file_goes_to_quarantine(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    source = as_folder(tmp_path / "features", features())
    file = source / f"{IDS[0]}.npy"
    damaged = damage(file.read_bytes())
    assert damaged != file.read_bytes()
    file.write_bytes(damaged)
    summary = import_features(settings(tmp_path, source))
    (bad,) = summary.quarantined
    assert (bad.id, bad.content_hash, bad.reason) == (IDS[0], None, "unreadable")
    assert len(entry_of(tmp_path).ids) == 63


def test_numbers_too_large_for_float16(tmp_path: Path) -> None:
    arrays = features()
    arrays[IDS[5]][0, 0, 0] = -1e5
    source = as_npz(tmp_path / "features.npz", arrays)
    summary = import_features(settings(tmp_path, source, dtype="float16"))
    (bad,) = summary.quarantined
    assert bad.reason == "overflow"
    assert bad.detail == "its value 100000 is too large for float16: import with --dtype float32"
    summary = import_features(settings(tmp_path, source, dtype="float32"))
    assert summary.quarantined == []


def test_an_utterance_without_frames_between_others(tmp_path: Path) -> None:
    arrays = features(layers=None)
    arrays[IDS[1]] = arrays[IDS[1]][:0]
    summary = import_features(settings(tmp_path, as_emotion2vec(tmp_path / "a.npy", arrays)))
    assert [(bad.id, bad.reason) for bad in summary.quarantined] == [(IDS[1], "empty")]
    del arrays[IDS[1]]
    assert_same(entry_of(tmp_path), arrays, "float32")


# The whole source ---------------------------------------------------------------------------------


def changed_npz(tmp_path: Path, **changes: Any) -> Path:
    feats, lengths = concatenated(features())
    arrays: dict[str, Any] = {"feats": feats, "lengths": np.array(lengths), "keys": np.array(IDS)}
    arrays.update(changes)
    path = tmp_path / "features.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lengths": np.full(64, 3)}, "add up to 192 frames, but it has 191"),
        ({"lengths": np.arange(64) - 5}, "is -5: give 0 or more"),
        ({"lengths": np.ones(64)}, "lengths in"),
        ({"keys": np.array(IDS[:60])}, "64 lengths but 60 keys"),
        ({"keys": np.array([*IDS[:63], IDS[0]])}, f"1 ids more than once, such as '{IDS[0]}'"),
        ({"keys": np.arange(64)}, "store the ids as strings"),
        ({"keys": np.array([b"\xff"] * 64)}, "not UTF-8"),
        (
            {"keys": np.array([*IDS[:62], "x", "y"])},
            "2 utterances that are not in the manifest",
        ),
        ({"feats": None}, "has no array 'feats'"),
        ({"feats": np.zeros(7)}, "have the shape (7,): give (frames, dim)"),
        ({"feats": np.zeros((191, 6), dtype="bool")}, "it contains bool, not numbers"),
        ({"feats": np.full((191, 6), np.nan)}, "all 64 utterances are in quarantine"),
        (
            {"feats": np.array([object()] * 7)},
            "array 'feats': it contains pickled objects",
        ),
        ({"keys": np.array(list(IDS), dtype=object)}, "array 'keys': it contains pickled objects"),
    ],
)
def test_an_inconsistent_npz(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = changed_npz(tmp_path, **changes)
    sentence = refusal(settings(tmp_path, path))
    assert words in sentence
    assert str(path) in sentence
    assert FeatureCache(tmp_path / "cache").entries("theirs") == []


@pytest.mark.parametrize("packed", [True, False])
def test_a_damaged_npz(tmp_path: Path, packed: bool) -> None:
    path = as_npz(tmp_path / "features.npz", features(), packed)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("feats.npy").header_offset
    flipped = bytearray(whole)
    flipped[start + 500] ^= 4
    for content in (bytes(flipped), whole[:-10], whole[: len(whole) // 2], b""):
        path.write_bytes(content)
        assert "is damaged or is not an .npz" in refusal(settings(tmp_path, path))


def declared(path: Path, shape: tuple[int, ...], zeros: int, size: int | None = None) -> Path:
    """A compressed .npz whose feats claim a shape, hold some zeros, and declare a size."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"shape": shape, "fortran_order": False, "descr": "<f4"}
    )
    content = header.getvalue() + bytes(zeros)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("feats.npy", content)
    if size is not None:
        whole = path.read_bytes()
        real = struct.pack("<I", len(content))
        assert whole.count(real) == 2
        path.write_bytes(whole.replace(real, struct.pack("<I", size)))
    return path


def test_a_zip_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpack(*_: object, **__: object) -> None:
        raise AssertionError("it is unpacked")

    monkeypatch.setattr(tempfile, "TemporaryFile", unpack)
    path = tmp_path / "features.npz"
    size = 2**27
    sentence = refusal(settings(tmp_path, declared(path, (size // 24, 6), size // 24 * 24)))
    assert f"{path}, array 'feats': its" in sentence
    assert "which no features do" in sentence
    sentence = refusal(settings(tmp_path, declared(path, (10**12, 6), 24)))
    assert "and the archive declares 152" in sentence
    huge = declared(path, (2**27, 6), 24, 2**27 * 24 + 128)
    assert "which no features do" in refusal(settings(tmp_path, huge))

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    assert "has 100 free: set TMPDIR" in refusal(settings(tmp_path, declared(path, (1, 6), 24)))


class Malicious:
    """An object that touches a file if it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    bomb = np.array([Malicious(trace)], dtype=object)
    folder = as_folder(tmp_path / "folder", {IDS[0]: bomb, IDS[1]: bomb})
    (folder / f"{IDS[1]}.npy").write_bytes(pickle.dumps(Malicious(trace)))
    shutil.copy(folder / f"{IDS[0]}.npy", tmp_path / "x.npy")
    (tmp_path / "x.lengths").write_text("1\n")
    (tmp_path / "x.emo").write_text(f"{IDS[0]}\tsad\n")
    np.savez(tmp_path / "x.npz", feats=bomb, lengths=[1], keys=[IDS[0]])
    for source in (folder, tmp_path / "x.npy", tmp_path / "x.npz"):
        sentence = refusal(settings(tmp_path, source))
        assert "it contains pickled objects, which are refused because" in sentence
    assert not trace.exists()
    with (folder / f"{IDS[1]}.npy").open("rb") as file:
        pickle.load(file)
    assert trace.exists()  # unpickling would have been noticed


def test_emotion2vec_with_wrong_or_missing_lengths(tmp_path: Path) -> None:
    source = as_emotion2vec(tmp_path / "train.npy", features(), emo=False)
    lengths = tmp_path / "train.lengths"
    assert "64 lengths but 62 utterances in the manifest" in refusal(
        settings(tmp_path, source, manifest=manifest(tmp_path / "few.csv", IDS[:62]))
    )
    lengths.write_text(lengths.read_text().replace("2\n", "two\n", 1))
    assert f"{lengths}, line 1: 'two' is not a whole number" in refusal(settings(tmp_path, source))
    lengths.unlink()
    assert "has no train.lengths beside it" in refusal(settings(tmp_path, source))


def test_emotion2vec_without_ids_needs_a_manifest(tmp_path: Path) -> None:
    source = as_emotion2vec(tmp_path / "train.npy", features(), emo=False)
    import_features(settings(tmp_path, source))
    sentence = refusal(settings(tmp_path, source, manifest=None), UsageError)
    assert "has no train.emo with the ids beside it" in sentence
    assert "give --manifest" in sentence


def test_a_folder_of_emotion2vec_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "feats").mkdir()
    source = as_emotion2vec(tmp_path / "feats" / "train.npy", features())
    assert f"give the file, {source}, instead of the folder" in refusal(
        settings(tmp_path, source.parent)
    )


def test_a_source_of_no_known_form(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "features.pt").write_bytes(b"PK")
    assert "there is no" in refusal(settings(tmp_path, tmp_path / "nowhere.npy"), UsageError)
    assert "contains no .npy file" in refusal(settings(tmp_path, tmp_path / "empty"))
    assert "has none of the forms that can be imported" in refusal(
        settings(tmp_path, tmp_path / "features.pt")
    )


def test_a_new_dataset_without_a_manifest_is_refused(tmp_path: Path) -> None:
    source = as_folder(tmp_path / "features", features())
    sentence = refusal(settings(tmp_path, source, manifest=None), UsageError)
    assert "give one with --manifest" in sentence
    assert "training needs labels" in sentence
    assert not list(tmp_path.glob("cache/theirs/*"))


def test_a_dataset_name_that_leads_out_of_the_cache(tmp_path: Path) -> None:
    source = as_folder(tmp_path / "features", features())
    refusal(settings(tmp_path, source, dataset="../theirs"), CacheError)


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "int4"},
        {"shard_mib": 0},
        {"encoder": ""},
        {"modality": "../speech"},
        {"layers": ()},
        {"layers": (0, 0)},
        {"layers": (-1,)},
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    wanted = settings(tmp_path, tmp_path)
    with pytest.raises(UsageError):
        replace(wanted, **changes)


def test_a_summary_as_json(tmp_path: Path) -> None:
    arrays = {**features(), IDS[0]: np.zeros((2, 0, DIM), dtype="float32")}
    source = as_folder(tmp_path / "features", arrays)
    summary = import_features(settings(tmp_path, source)).as_json()
    assert json.loads(json.dumps(summary))["new"] == 63
    assert summary["quarantined"][0]["reason"] == "empty"
    assert Path(summary["entry"]).is_dir()
