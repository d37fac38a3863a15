"""A scale that is damaged, lost, exchanged or hostile is found, and named in one sentence."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mser.cache import DamagedError, FeatureCache, UtteranceFeatures, verify
from mser.cache.scale import Scale
from mser.tests.support.cache_entries import Array, fill, path_of, spec

LAYERS, DIM = 3, 4
STATES = {f"u{n}": np.random.default_rng(n).standard_normal((3, 5, 4), "f4") for n in range(4)}
SHARDS = [{id: STATES[id] for id in part} for part in (["u0", "u1"], ["u2", "u3"])]


@pytest.fixture
def scale_file(tmp_path: Path) -> Path:
    """The scale of an entry of two shards."""
    return path_of(fill(tmp_path, SHARDS, dtype="int8")) / "scale.npz"


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def exchange(file: Path) -> None:
    other = Scale.of([10 * states for states in STATES.values()])
    file.write_bytes(other.to_bytes())


def npz(arrays: dict[str, Array], compression: int = zipfile.ZIP_STORED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", compression) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=True)
            archive.writestr(f"{name}.npy", content.getvalue())
    return sink.getvalue()


def parts(**changes: Array) -> dict[str, Array]:
    one = np.ones((LAYERS, DIM), "f4")
    return {"offset": one, "step": one, "growth": 2 * one, **changes}


HOSTILE = {
    "empty": b"",
    "no zip": b"PK" + bytes(200),
    "another shape": npz(parts(step=np.ones((LAYERS, DIM + 1), "f4"))),
    "pickled": npz(parts(step=np.array([[{}] * DIM] * LAYERS, object))),
    "compressed": npz(parts(), zipfile.ZIP_DEFLATED),
    "a bomb": npz(parts(step=np.zeros((3000, 3000), "f4")), zipfile.ZIP_DEFLATED),
    "missing": npz({"offset": np.ones((LAYERS, DIM), "f4")}),
    "NaN": npz(parts(offset=np.full((LAYERS, DIM), np.nan, "f4"))),
    "no step": npz(parts(step=np.zeros((LAYERS, DIM), "f4"))),
    "no growth": npz(parts(growth=np.ones((LAYERS, DIM), "f4"))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_scale_is_damage(scale_file: Path, name: str, unpickled: None) -> None:
    scale_file.write_bytes(HOSTILE[name])
    entry = FeatureCache(scale_file.parents[2]).open("made-up")
    with pytest.raises(DamagedError, match=r"scale\.npz is damaged") as raised:
        entry.read(["u0"])
    assert "\n" not in str(raised.value)


def test_a_lost_scale_is_damage_for_readers_and_writers(scale_file: Path) -> None:
    root = scale_file.parents[2]
    entry, writer = (
        FeatureCache(root).open("made-up"),
        FeatureCache(root).writer(spec(dtype="int8"), {}),
    )
    scale_file.unlink()
    for use in (
        lambda: entry["u0"],
        lambda: writer.write_shard(9, [UtteranceFeatures("new", "h", STATES["u0"])]),
    ):
        with pytest.raises(DamagedError, match=r"scale\.npz is missing") as raised:
            use()
        assert "\n" not in str(raised.value)
    assert not scale_file.exists()  # no other scale took its place


@pytest.mark.parametrize("change", [damage, exchange, Path.unlink])
@pytest.mark.parametrize("sample", [1.0, 0.5])
def test_verify_finds_the_scale_and_repair_begins_anew(scale_file: Path, change, sample) -> None:
    folder = FeatureCache(scale_file.parents[2]).open("made-up").folder
    assert not verify(folder).damage
    change(scale_file)
    result = verify(folder)
    lost = {id for damaged in result.damage for id in damaged.lost}
    assert lost == set(STATES)
    repaired = verify(folder, sample, repair=True)
    assert repaired.repaired
    verify(folder, repair=True)  # of a sample, the rest
    left = verify(folder)
    assert (left.damage, left.utterances) == ([], 0)
    writer = FeatureCache(scale_file.parents[2]).writer(spec(dtype="int8"), {})
    writer.write_shard(0, [UtteranceFeatures(id, "h", states) for id, states in STATES.items()])
    writer.publish()
    entry = FeatureCache(scale_file.parents[2]).open("made-up")
    for id, states in STATES.items():
        np.testing.assert_allclose(entry[id], states, atol=0.2)
    assert not verify(folder).damage


def test_a_rewritten_shard_keeps_its_scale(scale_file: Path) -> None:
    folder = FeatureCache(scale_file.parents[2]).open("made-up").folder
    (shard,) = [p for p in (scale_file.parent / "shards").iterdir() if p.name.startswith("00000")]
    data = shard / "hidden_states/c/0/0/0"
    content = bytearray(data.read_bytes())
    content[0] ^= 1  # of one utterance
    data.write_bytes(content)
    verify(folder, repair=True)
    assert not verify(folder).damage
    assert list(FeatureCache(scale_file.parents[2]).open("made-up").ids) == ["u1", "u2", "u3"]
