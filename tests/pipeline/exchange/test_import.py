"""Imported features are stored exactly, in every form of source."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mser.cache import EntryWriter, FeatureCache, UtteranceFeatures
from mser.pipeline.errors import UsageError
from mser.pipeline.exchange import ExportSettings, export_features, import_features
from mser.pipeline.train import TrainSettings, train_head
from mser.tests.support.exchange_files import (
    IDS,
    Array,
    as_emotion2vec,
    as_folder,
    as_npz,
    assert_same,
    entry_of,
    features,
    manifest,
    refusal,
    settings,
    write_csv,
)

# The three forms ----------------------------------------------------------------------------------


def packed_npz(path: Path, arrays: dict[str, Array]) -> Path:
    return as_npz(path, arrays, packed=True)


def without_emo(path: Path, arrays: dict[str, Array]) -> Path:
    return as_emotion2vec(path, arrays, emo=False)


FORMS: list[tuple[str, Callable[[Path, dict[str, Array]], Path]]] = [
    ("features", as_folder),
    ("features.npz", as_npz),
    ("features.npz", packed_npz),
    ("features.npy", as_emotion2vec),
    ("features.npy", without_emo),
]


@pytest.mark.parametrize(("name", "write"), FORMS)
@pytest.mark.parametrize("layers", [2, None])
def test_each_form_is_imported_exactly(
    tmp_path: Path, name: str, write: Callable[[Path, Any], Path], layers: int | None
) -> None:
    arrays = features(layers=layers)
    summary = import_features(settings(tmp_path, write(tmp_path / name, arrays)))
    entry = entry_of(tmp_path, encoder="their/encoder", modality="speech")
    assert_same(entry, arrays, "float32")
    assert entry.spec.layers == tuple(range(layers or 1))
    assert entry.spec.identity == {"source": "imported", "encoder": "their/encoder"}
    assert (summary.new, summary.present, summary.quarantined) == (len(IDS), 0, [])
    assert (summary.missing, summary.unlisted) == ([], [])


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64"])
@pytest.mark.parametrize(("name", "write"), FORMS[:2])
def test_whole_numbers_become_float32(
    tmp_path: Path, name: str, write: Callable[[Path, Any], Path], dtype: str
) -> None:
    arrays = {id: np.abs(array).round().astype(dtype) for id, array in features().items()}
    summary = import_features(settings(tmp_path, write(tmp_path / name, arrays)))
    assert summary.quarantined == []
    assert entry_of(tmp_path).spec.dtype == "float32"
    assert_same(entry_of(tmp_path), arrays, "float32")
    again = import_features(settings(tmp_path, tmp_path / name))
    assert (again.new, again.present) == (0, len(IDS))


@pytest.mark.parametrize(("name", "write"), FORMS)
def test_a_head_can_be_trained_on_each_form(
    tmp_path: Path, name: str, write: Callable[[Path, Any], Path]
) -> None:
    import_features(settings(tmp_path, write(tmp_path / name, features())))
    training = TrainSettings(
        "linear",
        "theirs",
        tmp_path / "cache",
        {"speech": None},
        out=tmp_path / "run",
        device="cpu",
    )
    run = train_head(training.with_overrides(["l2=0.1"]))
    assert run.metrics["protocol"] == "official"
    assert run.metrics["test_utterances"] == 8
    assert run.metrics["excluded"] == {}
    assert run.metrics["chance"]["wa"]["mean"] == 0.25
    assert run.metrics["aggregate"]["wa"]["mean"] >= 0.75


def test_imported_text_features_are_not_compared_with_the_text(tmp_path: Path) -> None:
    rows = [
        {"id": id, "label": "ab"[n % 2], "split": id.split("/")[0], "text": "Well."}
        for n, id in enumerate(IDS)
    ]
    source = as_folder(tmp_path / "features", features())
    csv = write_csv(tmp_path / "texts.csv", rows)
    import_features(settings(tmp_path, source, modality="text", manifest=csv))
    training = TrainSettings(
        "linear", "theirs", tmp_path / "cache", {"text": None}, out=tmp_path / "run", device="cpu"
    )
    run = train_head(training.with_overrides(["l2=0.1"]))
    assert run.metrics["excluded"] == {}


def test_a_folder_with_links_and_companion_files(tmp_path: Path) -> None:
    arrays = features()
    source = as_folder(tmp_path / "elsewhere", arrays)
    folder = tmp_path / "features"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        (folder / split).symlink_to(source / split)
    (source / "train" / "up").symlink_to(folder)
    (source / "train" / "._dia0_utt0.npy").write_bytes(b"\0\5\x16\7")
    (source / "train" / "README.txt").write_text("no features")
    import_features(settings(tmp_path, folder))
    assert_same(entry_of(tmp_path), arrays, "float32")


def test_fortran_order_and_other_byte_orders(tmp_path: Path) -> None:
    arrays = features()
    reordered = {
        id: np.asfortranarray(array) if n % 2 else array.astype(">f4")
        for n, (id, array) in enumerate(arrays.items())
    }
    import_features(settings(tmp_path, as_folder(tmp_path / "features", reordered)))
    assert_same(entry_of(tmp_path), arrays, "float32")


def test_ids_of_emotion2vec_may_contain_spaces(tmp_path: Path) -> None:
    arrays = {id.replace("_", " "): array for id, array in features().items()}
    source = as_emotion2vec(tmp_path / "train.npy", arrays)
    csv = manifest(tmp_path / "spaces.csv", [id.replace("_", " ") for id in IDS])
    import_features(settings(tmp_path, source, manifest=csv))
    assert_same(entry_of(tmp_path), arrays, "float32")


def test_three_files_fill_one_entry(tmp_path: Path) -> None:
    arrays = features(layers=None)
    for split in ("train", "validation", "test"):
        part = {id: array for id, array in arrays.items() if id.startswith(split)}
        source = as_emotion2vec(tmp_path / f"{split}.npy", part)
        summary = import_features(settings(tmp_path, source))
        if split == "validation":
            assert summary.missing == [id for id in IDS if id.startswith("test")]
            assert "without features (8: 'test/dia14_utt56', " in str(summary)
    assert summary.missing == []
    assert_same(entry_of(tmp_path), arrays, "float32")


# Numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "wanted", "stored"),
    [
        ("float16", None, "float16"),
        ("float32", None, "float32"),
        ("float64", None, "float32"),
        ("float64", "float16", "float16"),
        ("float16", "float32", "float32"),
    ],
)
def test_dtypes(tmp_path: Path, given: str, wanted: str | None, stored: str) -> None:
    arrays = features(dtype=given)
    source = as_npz(tmp_path / "features.npz", arrays)
    import_features(settings(tmp_path, source, dtype=wanted))
    assert_same(entry_of(tmp_path), arrays, stored)


def test_float16_among_float32_is_stored_without_loss(tmp_path: Path) -> None:
    arrays = features(dtype="float16")
    arrays[IDS[3]] = arrays[IDS[3]].astype("float32") + np.float32(1e-7)
    import_features(settings(tmp_path, as_folder(tmp_path / "features", arrays)))
    assert_same(entry_of(tmp_path), arrays, "float32")


def test_layer_numbers(tmp_path: Path) -> None:
    source = as_folder(tmp_path / "features", features(layers=3))
    import_features(settings(tmp_path, source, layers=(0, 6, 12)))
    assert entry_of(tmp_path).spec.layers == (0, 6, 12)
    sentence = refusal(settings(tmp_path, source, layers=(0, 12)), UsageError)
    assert sentence.startswith("2 layers are given, but the features in")
    assert "have 3" in sentence


@pytest.mark.parametrize(("store", "compression"), [("hdf5", "none"), ("zarr", "zstd")])
def test_other_stores(tmp_path: Path, store: str, compression: str) -> None:
    arrays = features()
    source = as_npz(tmp_path / "features.npz", arrays)
    import_features(settings(tmp_path, source, store=store, compression=compression))
    assert_same(entry_of(tmp_path), arrays, "float32")


def test_an_object_store(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}"
    arrays = features()
    source = as_folder(tmp_path / "features", arrays)
    summary = import_features(settings(tmp_path, source, cache=url))
    assert_same(FeatureCache(url).open("theirs"), arrays, "float32")
    assert summary.entry.startswith(url)
    export_features(ExportSettings(url, "theirs", tmp_path / "out", "npy"))
    again = import_features(settings(tmp_path, tmp_path / "out", cache=url))
    assert (again.new, again.present) == (0, 64)


# Incremental imports ------------------------------------------------------------------------------


def test_only_new_and_changed_features_are_written(tmp_path: Path) -> None:
    arrays = features()
    source = as_folder(tmp_path / "features", dict(list(arrays.items())[:60]))
    first = import_features(settings(tmp_path, source))
    assert (first.new, first.present, len(first.missing)) == (60, 0, 4)

    arrays[IDS[7]] = arrays[IDS[7]] + 1
    as_folder(source, arrays)
    second = import_features(settings(tmp_path, source))
    assert (second.new, second.present, second.missing) == (5, 59, [])
    written = [arrays[id].nbytes for id in (IDS[7], *IDS[60:])]
    assert second.bytes == sum(written)
    assert_same(entry_of(tmp_path), arrays, "float32")

    third = import_features(settings(tmp_path, source))
    assert (third.new, third.present) == (0, 64)
    assert "nothing new, 64 unchanged" in str(third)


def test_the_manifest_in_the_cache_is_used_by_default(tmp_path: Path) -> None:
    arrays = features()
    source = as_npz(tmp_path / "features.npz", arrays)
    import_features(settings(tmp_path, source))
    other = settings(tmp_path, source, encoder="another", manifest=None)
    import_features(other)
    assert (
        entry_of(tmp_path, encoder="another").manifest
        == entry_of(tmp_path, encoder="their/encoder").manifest
    )
    assert_same(entry_of(tmp_path, encoder="another"), arrays, "float32")


def test_utterances_that_a_later_manifest_lacks_are_counted(tmp_path: Path) -> None:
    arrays = features()
    import_features(settings(tmp_path, as_npz(tmp_path / "all.npz", arrays)))
    some = {id: arrays[id] for id in IDS[:10]}
    csv = manifest(tmp_path / "some.csv", IDS[:10])
    summary = import_features(
        settings(tmp_path, as_npz(tmp_path / "some.npz", some), manifest=csv, replace=True)
    )
    assert summary.unlisted == sorted(IDS[10:])
    assert "not in the manifest, so not used for training (54: " in str(summary)


def test_shards_have_the_given_size(tmp_path: Path) -> None:
    arrays = features()
    source = as_npz(tmp_path / "features.npz", arrays)
    import_features(settings(tmp_path, source, shard_mib=1000 / 2**20))
    entry = entry_of(tmp_path)
    assert_same(entry, arrays, "float32")
    shards = list(tmp_path.glob("cache/theirs/*/shards/*"))
    total = sum(array.nbytes for array in arrays.values())
    assert total / 1000 <= len(shards) < len(arrays)


def test_an_interrupted_import_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = features()
    wanted = settings(tmp_path, as_npz(tmp_path / "a.npz", arrays), shard_mib=1000 / 2**20)
    write = EntryWriter.write_shard

    def interrupted(self: EntryWriter, number: int, utterances: Sequence[UtteranceFeatures]) -> str:
        if number == 3:
            raise KeyboardInterrupt
        return write(self, number, utterances)

    with monkeypatch.context() as patched:
        patched.setattr(EntryWriter, "write_shard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            import_features(wanted)
    before = len(entry_of(tmp_path).ids)
    assert before > 0
    summary = import_features(wanted)
    assert (summary.present, summary.new) == (before, 64 - before)
    assert_same(entry_of(tmp_path), arrays, "float32")


def test_more_files_than_a_process_may_open(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    source = as_folder(tmp_path / "features", features())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_files = max(map(int, os.listdir("/dev/fd"))) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files + 30, hard))
    try:
        summary = import_features(settings(tmp_path, source))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (summary.new, summary.quarantined) == (64, [])
