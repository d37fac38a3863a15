"""Push features and pull them into another cache, against a small hub on this machine."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mser.cache import FeatureCache as ArrayCache
from mser.cache import UtteranceFeatures, verify
from mser.pipeline.errors import UsageError
from mser.pipeline.feature_cache import FeatureCache
from mser.pipeline.share import features as features_module
from mser.pipeline.share.features import push_features
from mser.tests.conftest import Call
from mser.tests.support.hub_server import HubState
from mser.tests.support.standard_error import is_one_sentence
from mser.tests.support.train_runs import made_both, official

REPO = "someone/made-up-features"
KEY = f"datasets/{REPO}"
SHARE = ("--i-may-share", "--license", "odbl")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of two modalities. Do not change them."""
    return made_both(tmp_path_factory.mktemp("features") / "cache", official(6, 3, 3))


def pushed(call: Call, cache: Path, *modalities: str) -> None:
    for modality in modalities:
        code, _, err = call(
            *("cache", "push", REPO, "--dataset", "made-up", "--cache", cache),
            *("--modality", modality, *SHARE),
        )
        assert (code, err) == (0, "")


def test_pulled_features_have_the_same_bits_and_can_be_trained_on(
    call: Call, hub: HubState, cache: Path
) -> None:
    pushed(call, cache, "speech", "text")
    code, out, err = call("cache", "pull", REPO, "--cache", "other")
    assert (code, err) == (0, "")
    assert out.count("1 of 1 shards fetched") == 2
    ours, theirs = FeatureCache(cache), FeatureCache("other")
    assert theirs.datasets() == ["made-up"]
    for modality in ("speech", "text"):
        first, second = (c.open("made-up", modality=modality) for c in (ours, theirs))
        assert first.spec == second.spec
        assert list(first.ids) == list(second.ids)
        for id in first.ids:
            np.testing.assert_array_equal(first[id], second[id])
        assert not verify(second.folder).damage
    labels = [theirs.corpus("made-up").label, ours.corpus("made-up").label]
    assert list(labels[0]) == list(labels[1])
    code, _, err = call(
        *("train-head", "--head", "linear", "--dataset", "made-up", "--cache", "other"),
        *("--set", "l2=0.1"),
    )
    assert code == 0, err

    # A second pull fetches no shard, and what is here is not touched.
    hub.asked.clear()
    files = {path: path.stat().st_mtime_ns for path in Path("other").rglob("*")}
    code, out, err = call("cache", "pull", REPO, "--cache", "other")
    assert (code, err) == (0, "")
    assert out.count("0 of 1 shards fetched") == 2
    assert not [path for path in hub.asked if "/shards/" in path]
    entries = {p: t for p, t in files.items() if p.name in ("entry.json", "zarr.json", "0")}
    assert {path: path.stat().st_mtime_ns for path in entries} == entries


def test_nothing_of_the_machine_is_pushed(call: Call, hub: HubState, cache: Path) -> None:
    pushed(call, cache, "speech")
    names = {name.rpartition("/")[2] for name in hub.repositories[KEY]}
    assert not names & {"runs", "leases", "quarantine.jsonl"}
    assert not any("/runs/" in name or "/leases/" in name for name in hub.repositories[KEY])
    everything = b"\n".join(hub.repositories[KEY].values())
    assert str(cache).encode() not in everything
    assert 'license: "odbl"' in hub.repositories[KEY]["README.md"].decode()


def test_a_path_outside_the_corpus_is_left_out(tmp_path: Path, cache: Path) -> None:
    made = FeatureCache(cache)
    table = made.read_manifest("made-up", made.open("made-up", modality="speech").manifest)
    assert set(table["audio"].to_pylist()) == {None}
    paths = ["/home/me/a.wav", "below/b.wav", *table["audio"].to_pylist()[2:]]
    column = table.column_names.index("audio")
    import pyarrow as pa  # noqa: PLC0415

    given = table.set_column(column, table.schema.field("audio"), pa.array(paths, pa.string()))
    cleaned = features_module._without_foreign_paths(given)
    assert cleaned["audio"].to_pylist()[:2] == [None, "below/b.wav"]
    assert cleaned.schema.metadata == table.schema.metadata


@pytest.mark.parametrize("options", [(), ("--i-may-share",), ("--license", "mit")])
def test_without_the_statement_and_the_licence_nothing_is_pushed(
    call: Call, hub: HubState, cache: Path, options: tuple[str, ...]
) -> None:
    command = ("cache", "push", REPO, "--dataset", "made-up", "--cache", cache)
    code, out, err = call(*command, "--modality", "speech", *options)
    assert (code, out) == (2, "")
    assert is_one_sentence(err), err
    assert "give --i-may-share and --license NAME" in err
    assert hub.asked == []


@pytest.mark.parametrize("dataset", ["iemocap", "msp-podcast"])
def test_a_corpus_whose_licence_forbids_it_is_never_pushed(
    hub: HubState, cache: Path, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = FeatureCache(cache)
    entry = features.open("made-up", modality="speech")
    object.__setattr__(entry.spec, "dataset", dataset)
    with pytest.raises(UsageError, match=f"features of {dataset} may not be pushed"):
        push_features(features, entry, REPO, license="mit", i_may_share=True)
    assert hub.asked == []


@pytest.mark.parametrize("what", ["shard", "record", "corpus", "nothing", "place"])
def test_damaged_features_are_one_sentence_and_reach_no_reader(
    call: Call, hub: HubState, cache: Path, what: str
) -> None:
    pushed(call, cache, "speech")
    files = hub.repositories[KEY]
    if what == "shard":
        name = next(n for n in files if "/shards/" in n and n.endswith("/0"))
        files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])
    elif what == "nothing":
        files.clear()
    elif what == "place":
        name = next(n for n in files if n.endswith("entry.json"))
        files[name.replace("speech-", "speech-x")] = files[name]
    else:
        ends = {"record": "entry.json", "corpus": "corpus.parquet"}[what]
        files[next(n for n in files if n.endswith(ends))] = b"{}"
    code, _, err = call("cache", "pull", REPO, "--cache", "other")
    assert code == (2 if what == "nothing" else 1)
    assert is_one_sentence(err), err
    assert ("holds no features" if what == "nothing" else "is damaged") in err
    if what != "place":
        assert ArrayCache("other").datasets() == []
        assert not list(Path("other").rglob("*"))


def test_the_corpus_in_the_repository_is_a_table(call: Call, hub: HubState, cache: Path) -> None:
    pushed(call, cache, "text")
    name = next(n for n in hub.repositories[KEY] if n.endswith("corpus.parquet"))
    Path("corpus.parquet").write_bytes(hub.repositories[KEY][name])
    assert pq.read_table("corpus.parquet").num_rows == 12


def test_int8_is_pulled_with_its_scale(
    call: Call, hub: HubState, cache: Path, tmp_path: Path
) -> None:
    exact, source = ArrayCache(cache), ArrayCache(cache).open("made-up", modality="speech")
    spec, small = replace(source.spec, dtype="int8"), ArrayCache(tmp_path / "small")
    writer = small.writer(spec, {})
    writer.write_shard(0, [UtteranceFeatures(id, id, source[id]) for id in source.ids])
    manifest = exact.read_manifest("made-up", source.manifest)
    writer.publish(small.write_manifest("made-up", manifest))
    pushed(call, tmp_path / "small", "speech")
    code, _, err = call("cache", "pull", REPO, "--cache", tmp_path / "other")
    assert (code, err) == (0, "")
    first, second = (ArrayCache(tmp_path / name).open("made-up") for name in ("small", "other"))
    assert second.spec.dtype == "int8"
    for id in source.ids:
        np.testing.assert_array_equal(first[id], second[id])
    assert not verify(second.folder).damage
    differing = ArrayCache(tmp_path / "third").writer(spec, {})
    differing.scale(lambda: [3 * source[id].astype("f4") for id in source.ids])
    code, _, err = call("cache", "pull", REPO, "--cache", tmp_path / "third")
    assert code == 2
    assert is_one_sentence(err)
    assert "was calibrated on other utterances" in err
