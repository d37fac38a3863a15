"""Features of other tools in the cache: exact, incremental, trainable, and never unpickled."""

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mser.cache import CacheError, EntryWriter, FeatureCache, Features
from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.exchange import (
    ExportSettings,
    ImportSettings,
    export_features,
    import_features,
)
from mser.pipeline.train import TrainSettings, train_head
from mser.tests.exchange_files import (
    DIM,
    IDS,
    Array,
    as_emotion2vec,
    as_folder,
    as_npz,
    assert_same,
    end_to_end,
    features,
    manifest,
    opened,
    settings,
    write_csv,
)


def refusal(wanted: ImportSettings, kind: type[Exception] = PipelineError) -> str:
    with pytest.raises(kind) as raised:
        import_features(wanted)
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value)
    return str(raised.value)


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
def test_each_form_comes_in_exactly(
    tmp_path: Path, name: str, write: Callable[[Path, Any], Path], layers: int | None
) -> None:
    arrays = features(layers=layers)
    summary = import_features(settings(tmp_path, write(tmp_path / name, arrays)))
    entry = opened(tmp_path, encoder="their/encoder", modality="speech")
    assert_same(entry, arrays, "float32")
    assert entry.spec.layers == tuple(range(layers or 1))
    assert entry.spec.identity == {"source": "imported", "encoder": "their/encoder"}
    assert (summary.new, summary.present, summary.quarantined) == (len(IDS), 0, [])
    assert (summary.missing, summary.unlisted) == ([], [])


@pytest.mark.parametrize(("name", "write"), FORMS)
def test_each_form_can_be_trained_on_at_once(
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
    done = train_head(training.with_overrides(["epochs=20", "learning_rate=0.05"]))
    assert done.metrics["protocol"] == "official"
    assert done.metrics["test_utterances"] == 8
    assert done.metrics["excluded"] == {}
    assert done.metrics["chance"]["wa"]["mean"] == 0.25
    assert done.metrics["aggregate"]["wa"]["mean"] >= 0.75


def test_text_features_are_not_compared_with_the_text(tmp_path: Path) -> None:
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
    done = train_head(training.with_overrides(["epochs=1"]))
    assert done.metrics["excluded"] == {}


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
    assert_same(opened(tmp_path), arrays, "float32")


def test_fortran_order_and_another_byte_order(tmp_path: Path) -> None:
    arrays = features()
    odd = {
        id: np.asfortranarray(array) if n % 2 else array.astype(">f4")
        for n, (id, array) in enumerate(arrays.items())
    }
    import_features(settings(tmp_path, as_folder(tmp_path / "features", odd)))
    assert_same(opened(tmp_path), arrays, "float32")


def test_ids_of_emotion2vec_may_hold_spaces_before_a_tab(tmp_path: Path) -> None:
    arrays = {id.replace("_", " "): array for id, array in features().items()}
    source = as_emotion2vec(tmp_path / "train.npy", arrays)
    csv = manifest(tmp_path / "spaces.csv", [id.replace("_", " ") for id in IDS])
    import_features(settings(tmp_path, source, manifest=csv))
    assert_same(opened(tmp_path), arrays, "float32")


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
    assert_same(opened(tmp_path), arrays, "float32")


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
    assert_same(opened(tmp_path), arrays, stored)


def test_float16_among_float32_is_stored_without_loss(tmp_path: Path) -> None:
    arrays = features(dtype="float16")
    arrays[IDS[3]] = arrays[IDS[3]].astype("float32") + np.float32(1e-7)
    import_features(settings(tmp_path, as_folder(tmp_path / "features", arrays)))
    assert_same(opened(tmp_path), arrays, "float32")


def test_layer_numbers(tmp_path: Path) -> None:
    source = as_folder(tmp_path / "features", features(layers=3))
    import_features(settings(tmp_path, source, layers=(0, 6, 12)))
    assert opened(tmp_path).spec.layers == (0, 6, 12)
    sentence = refusal(settings(tmp_path, source, layers=(0, 12)), UsageError)
    assert sentence.startswith("2 layers are named, and the features in")
    assert "have 3" in sentence


@pytest.mark.parametrize(("store", "compression"), [("hdf5", "none"), ("zarr", "zstd")])
def test_other_stores(tmp_path: Path, store: str, compression: str) -> None:
    arrays = features()
    source = as_npz(tmp_path / "features.npz", arrays)
    import_features(settings(tmp_path, source, store=store, compression=compression))
    assert_same(opened(tmp_path), arrays, "float32")


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


# What is there already ----------------------------------------------------------------------------


def test_only_what_is_new_or_changed_is_written(tmp_path: Path) -> None:
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
    assert_same(opened(tmp_path), arrays, "float32")

    third = import_features(settings(tmp_path, source))
    assert (third.new, third.present) == (0, 64)
    assert "nothing new, 64 were there before" in str(third)


def test_the_manifest_that_the_cache_has_is_used(tmp_path: Path) -> None:
    arrays = features()
    source = as_npz(tmp_path / "features.npz", arrays)
    import_features(settings(tmp_path, source))
    other = settings(tmp_path, source, encoder="another", manifest=None)
    import_features(other)
    assert (
        opened(tmp_path, encoder="another").manifest
        == opened(tmp_path, encoder="their/encoder").manifest
    )
    assert_same(opened(tmp_path, encoder="another"), arrays, "float32")


def test_utterances_that_a_later_manifest_has_not_are_counted(tmp_path: Path) -> None:
    arrays = features()
    import_features(settings(tmp_path, as_npz(tmp_path / "all.npz", arrays)))
    some = {id: arrays[id] for id in IDS[:10]}
    csv = manifest(tmp_path / "some.csv", IDS[:10])
    summary = import_features(settings(tmp_path, as_npz(tmp_path / "some.npz", some), manifest=csv))
    assert summary.unlisted == sorted(IDS[10:])
    assert "not in the manifest, so not trained on (54: " in str(summary)


def test_shards_are_as_small_as_is_asked_for(tmp_path: Path) -> None:
    arrays = features()
    source = as_npz(tmp_path / "features.npz", arrays)
    import_features(settings(tmp_path, source, shard_mib=1000 / 2**20))
    entry = opened(tmp_path)
    assert_same(entry, arrays, "float32")
    shards = list(tmp_path.glob("cache/theirs/*/shards/*"))
    total = sum(array.nbytes for array in arrays.values())
    assert total / 1000 <= len(shards) < len(arrays)


def test_an_interrupted_import_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = features()
    wanted = settings(tmp_path, as_npz(tmp_path / "a.npz", arrays), shard_mib=1000 / 2**20)
    write = EntryWriter.write_shard

    def interrupted(self: EntryWriter, number: int, utterances: Sequence[Features]) -> str:
        if number == 3:
            raise KeyboardInterrupt
        return write(self, number, utterances)

    with monkeypatch.context() as patched:
        patched.setattr(EntryWriter, "write_shard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            import_features(wanted)
    before = len(opened(tmp_path).ids)
    assert before > 0
    summary = import_features(wanted)
    assert (summary.present, summary.new) == (before, 64 - before)
    assert_same(opened(tmp_path), arrays, "float32")


def test_more_files_than_may_be_open(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    source = as_folder(tmp_path / "features", features())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened_now = max(map(int, os.listdir("/dev/fd"))) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened_now + 30, hard))
    try:
        summary = import_features(settings(tmp_path, source))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (summary.new, summary.quarantined) == (64, [])


# One bad utterance --------------------------------------------------------------------------------


def not_finite(array: Array) -> Array:
    return np.where(np.arange(array.size).reshape(array.shape) == 3, np.nan, array)


def infinite(array: Array) -> Array:
    return np.where(np.arange(array.size).reshape(array.shape) == 3, -np.inf, array)


@pytest.mark.parametrize(
    ("spoil", "reason", "words"),
    [
        (not_finite, "not-finite", "not all finite"),
        (infinite, "not-finite", "not all finite"),
        (lambda array: array[:, :0], "empty", "holds no frame"),
        (lambda array: array[..., :-1], "shape", "2 layers 5 wide, where most have 2 layers 6"),
        (lambda array: array[:1], "shape", "1 layers 6 wide, where most have 2 layers 6 wide"),
        (lambda array: array.ravel(), "shape", "neither (frames, dim) nor (layers, frames, dim)"),
        (lambda array: array.astype("int32"), "not-float", "it holds int32"),
        (lambda array: array > 0, "not-float", "it holds bool"),
        (lambda array: array.astype(object), "pickled", "it holds pickled objects, which are"),
    ],
)
def test_a_bad_utterance_goes_to_quarantine(
    tmp_path: Path, spoil: Callable[[Array], Array], reason: str, words: str
) -> None:
    arrays = features()
    bad, good = IDS[0], {id: array for id, array in arrays.items() if id != IDS[0]}
    source = as_folder(tmp_path / "features", {**arrays, bad: spoil(arrays[bad])})
    summary = import_features(settings(tmp_path, source))
    entry = opened(tmp_path)
    assert_same(entry, good, "float32")
    (one,) = summary.quarantined
    assert (one.id, one.reason) == (bad, reason)
    assert words in one.detail
    assert entry.quarantine == {bad: one}
    assert f"'{bad}' {reason}: " in str(summary)
    assert summary.missing == []  # it is not missing, it is bad

    as_folder(source, {bad: arrays[bad]})
    summary = import_features(settings(tmp_path, source))
    assert (summary.new, summary.present, summary.quarantined) == (1, 63, [])
    assert_same(opened(tmp_path), arrays, "float32")
    assert opened(tmp_path).quarantine == {}


def with_shape(content: bytes, shape: bytes) -> bytes:
    """Change what a file says of itself, and nothing else."""
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
    (one,) = summary.quarantined
    assert (one.id, one.content_hash, one.reason) == (IDS[0], None, "unreadable")
    assert len(opened(tmp_path).ids) == 63


def test_numbers_too_large_for_float16(tmp_path: Path) -> None:
    arrays = features()
    arrays[IDS[5]][0, 0, 0] = -1e5
    source = as_npz(tmp_path / "features.npz", arrays)
    summary = import_features(settings(tmp_path, source, dtype="float16"))
    (one,) = summary.quarantined
    assert one.reason == "overflow"
    assert one.detail == "100000 does not fit float16: import with --dtype float32"
    summary = import_features(settings(tmp_path, source, dtype="float32"))
    assert summary.quarantined == []


def test_utterances_without_a_frame_between_others(tmp_path: Path) -> None:
    arrays = features(layers=None)
    arrays[IDS[1]] = arrays[IDS[1]][:0]
    summary = import_features(settings(tmp_path, as_emotion2vec(tmp_path / "a.npy", arrays)))
    assert [(one.id, one.reason) for one in summary.quarantined] == [(IDS[1], "empty")]
    del arrays[IDS[1]]
    assert_same(opened(tmp_path), arrays, "float32")


# A source that is of no use -----------------------------------------------------------------------


def spoilt_npz(tmp_path: Path, **changes: Any) -> Path:
    feats, lengths = end_to_end(features())
    arrays: dict[str, Any] = {"feats": feats, "lengths": np.array(lengths), "keys": np.array(IDS)}
    arrays.update(changes)
    path = tmp_path / "features.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lengths": np.full(64, 3)}, "add up to 192 frames, and it holds 191"),
        ({"lengths": np.arange(64) - 5}, "hold -5: give 0 or more"),
        ({"lengths": np.ones(64)}, "lengths in"),
        ({"keys": np.array(IDS[:60])}, "64 lengths and 60 keys"),
        ({"keys": np.array([*IDS[:63], IDS[0]])}, f"1 utterances twice, such as '{IDS[0]}'"),
        ({"keys": np.arange(64)}, "store a list of texts"),
        ({"keys": np.array([b"\xff"] * 64)}, "not UTF-8"),
        ({"keys": np.array([*IDS[:62], "x", "y"])}, "2 utterances that the manifest has not, such"),
        ({"feats": None}, "holds no array 'feats'"),
        ({"feats": np.zeros(7)}, "have the shape (7,): give (frames, dim)"),
        ({"feats": np.zeros((191, 6), dtype="int8")}, "it holds int8 and no floating-point"),
        ({"feats": np.full((191, 6), np.nan)}, "none of the 64 features in"),
        ({"feats": np.array([object()] * 7)}, "array 'feats': it holds pickled objects, which are"),
        ({"keys": np.array(list(IDS), dtype=object)}, "array 'keys': it holds pickled objects"),
    ],
)
def test_an_npz_that_contradicts_itself(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = spoilt_npz(tmp_path, **changes)
    sentence = refusal(settings(tmp_path, path))
    assert words in sentence
    assert str(path) in sentence
    assert FeatureCache(tmp_path / "cache").entries("theirs") == []


@pytest.mark.parametrize("packed", [True, False])
def test_a_damaged_npz(tmp_path: Path, packed: bool) -> None:
    path = as_npz(tmp_path / "features.npz", features(), packed)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("feats.npy").header_offset
    flipped = bytearray(whole)
    flipped[at + 500] ^= 4
    for content in (bytes(flipped), whole[:-10], whole[: len(whole) // 2], b""):
        path.write_bytes(content)
        assert "is damaged, or no .npz" in refusal(settings(tmp_path, path))


class Malicious:
    """What runs when it is unpickled."""

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
        assert "it holds pickled objects, which are refused because reading them runs" in sentence
    assert not trace.exists()
    with (folder / f"{IDS[1]}.npy").open("rb") as file:
        pickle.load(file)
    assert trace.exists()  # so it would have been seen


def test_emotion2vec_without_what_belongs_to_it(tmp_path: Path) -> None:
    source = as_emotion2vec(tmp_path / "train.npy", features(), emo=False)
    lengths = tmp_path / "train.lengths"
    assert "64 lengths and 62 utterances in the manifest" in refusal(
        settings(tmp_path, source, manifest=manifest(tmp_path / "few.csv", IDS[:62]))
    )
    lengths.write_text(lengths.read_text().replace("2\n", "two\n", 1))
    assert f"{lengths}, line 1: 'two' is no whole number" in refusal(settings(tmp_path, source))
    lengths.unlink()
    assert "has no train.lengths beside it" in refusal(settings(tmp_path, source))


def test_emotion2vec_without_ids_needs_a_manifest(tmp_path: Path) -> None:
    source = as_emotion2vec(tmp_path / "train.npy", features(), emo=False)
    import_features(settings(tmp_path, source))
    sentence = refusal(settings(tmp_path, source, manifest=None), UsageError)
    assert "has no train.emo beside it" in sentence
    assert "give --manifest" in sentence


def test_the_folder_of_emotion2vec_files_is_not_taken_for_utterances(tmp_path: Path) -> None:
    (tmp_path / "feats").mkdir()
    source = as_emotion2vec(tmp_path / "feats" / "train.npy", features())
    assert f"give the file, {source}, and not the folder" in refusal(
        settings(tmp_path, source.parent)
    )


def test_a_source_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "features.pt").write_bytes(b"PK")
    assert "there is no" in refusal(settings(tmp_path, tmp_path / "nowhere.npy"), UsageError)
    assert "holds no .npy file" in refusal(settings(tmp_path, tmp_path / "empty"))
    assert "no features that can be imported" in refusal(
        settings(tmp_path, tmp_path / "features.pt")
    )


def test_without_a_manifest_a_new_dataset_is_refused(tmp_path: Path) -> None:
    source = as_folder(tmp_path / "features", features())
    sentence = refusal(settings(tmp_path, source, manifest=None), UsageError)
    assert "give --manifest" in sentence
    assert "training needs labels" in sentence
    assert not list(tmp_path.glob("cache/theirs/*"))


def test_a_dataset_of_a_name_that_leads_elsewhere(tmp_path: Path) -> None:
    source = as_folder(tmp_path / "features", features())
    refusal(settings(tmp_path, source, dataset="../theirs"), CacheError)


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "bfloat16"},
        {"shard_mib": 0},
        {"encoder": ""},
        {"modality": "../speech"},
        {"layers": ()},
        {"layers": (0, 0)},
        {"layers": (-1,)},
    ],
)
def test_settings_that_cannot_be_meant(tmp_path: Path, changes: dict[str, Any]) -> None:
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
