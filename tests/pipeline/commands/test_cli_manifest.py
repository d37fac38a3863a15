"""A corpus from a manifest through the command line, to a trained head."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mser.pipeline.corpora import synthetic
from mser.tests.conftest import Call
from mser.tests.support.standard_error import is_leakage_check, is_one_sentence


@pytest.fixture
def mine(tmp_path: Path, corpus_root: Path) -> Path:
    """A manifest with its clips beside it, in JSON Lines."""
    folder = tmp_path / "mine"
    (folder / "wav").mkdir(parents=True)
    rows = []
    for number, one in enumerate(synthetic.load(corpus_root).utterances[:36]):
        assert one.audio is not None
        shutil.copy(one.audio, folder / "wav" / f"{number}.wav")
        row = {"id": f"u{number}", "audio": f"wav/{number}.wav", "text": one.text}
        rows.append({**row, "label": one.label, "speaker": number % 6, "session": number % 3})
    return written(folder / "mine.jsonl", rows)


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def options(manifest: Path, encoders: dict[str, str]) -> list[object]:
    return [
        *("extract", "--dataset", "manifest", "--manifest", manifest, "--name", "mine"),
        *("--cache", "cache", "--workers", 0),
        *("--speech-encoder", encoders["speech"], "--text-encoder", encoders["text"]),
    ]


def test_training_needs_the_cache_alone(call: Call, mine: Path, encoders: dict[str, str]) -> None:
    code, out, err = call(*options(mine, encoders))
    assert (code, err) == (0, "")
    assert "36 are in the cache: 36 new" in out
    shutil.rmtree(mine.parent)
    typed = ["train-head", "--head", "linear", "--dataset", "mine", "--cache", "cache", "--json"]
    for protocol, folds in (([], 3), (["--protocol", "speaker-folds"], 5)):
        code, out, err = call(*typed, *protocol, "--set", "l2=0.1")
        assert code == 0
        assert is_leakage_check(err), err
        assert len(json.loads(out)["folds"]) == folds


@pytest.mark.parametrize(("kept", "modality"), [("audio", "speech"), ("text", "text")])
def test_a_modality_that_is_not_extracted_may_be_absent(
    call: Call, mine: Path, encoders: dict[str, str], kept: str, modality: str
) -> None:
    rows = [json.loads(line) for line in mine.read_text("utf-8").splitlines()[:3]]
    written(mine, [{"id": row["id"], kept: row[kept]} for row in rows])
    code, out, err = call(*options(mine, encoders), "--modalities", modality, "--json")
    assert (code, err) == (0, "")
    (one,) = json.loads(out)["modalities"]
    assert (one["modality"], one["new"], one["quarantined"]) == (modality, 3, [])


def test_an_absent_modality_is_in_quarantine(
    call: Call, mine: Path, encoders: dict[str, str]
) -> None:
    written(mine, [{"id": "a", "audio": "none.wav", "text": "Hm."}, {"id": "b", "text": "No."}])
    code, out, err = call(*options(mine, encoders), "--dry-run", "--json")
    assert (code, err) == (0, "")
    speech, text = json.loads(out)["modalities"]
    assert speech["reasons"] == {"absent": 2}
    assert text["pending"] == 2


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        ('{"id": "a"}\n{"id": "a"}\n', 1, "line 2: its id 'a' is also the id of line 1"),
        ("id\na\n", 1, "line 1, cannot be read as JSON"),
        (None, 2, "there is no manifest"),
    ],
)
def test_an_error_in_a_manifest_is_one_sentence(
    call: Call, mine: Path, encoders: dict[str, str], content: str | None, code: int, says: str
) -> None:
    mine.unlink()
    if content is not None:
        mine.write_text(content)
    found, out, err = call(*options(mine, encoders))
    assert (found, out) == (code, "")
    assert is_one_sentence(err), err
    assert says in err
    assert "mine.jsonl" in err


def manifest_of(folder: Path, name: str, count: int, **fields: Any) -> Path:
    rows = [{"id": f"{name}{number}", "text": "Oh no.", **fields} for number in range(count)]
    return written(folder / f"{name}.jsonl", rows)


def test_a_manifest_that_drops_most_utterances_asks_for_replace(
    call: Call, tmp_path: Path, encoders: dict[str, str]
) -> None:
    def extract(manifest: Path, *more: str) -> tuple[int, str, str]:
        typed = [*options(manifest, encoders), "--modalities", "text", *more]
        return call(*typed)

    assert extract(manifest_of(tmp_path, "a", 4))[0] == 0
    code, out, err = extract(manifest_of(tmp_path, "b", 4))
    assert (code, out) == (2, "")
    assert is_one_sentence(err)
    assert "4 of the 4 utterances of 'mine'" in err
    assert "--replace" in err
    assert extract(manifest_of(tmp_path, "b", 4), "--dry-run")[0] == 0
    assert extract(manifest_of(tmp_path, "a", 2))[0] == 0  # half of them stay
    assert extract(manifest_of(tmp_path, "b", 4), "--replace")[0] == 0


def test_a_corpus_without_text_says_which_modalities_to_give(call: Call, tmp_path: Path) -> None:
    encoders = {"speech": "nobody/absent", "text": "nobody/absent"}  # no encoder is looked for
    for fields, lacks, has in (({"text": None}, "text", "speech"), ({}, "audio", "text")):
        manifest = manifest_of(tmp_path, "a", 2, **{"audio": "a.wav" if fields else None, **fields})
        code, out, err = call(*options(manifest, encoders))
        assert (code, out) == (2, "")
        assert err == f"mser: no utterance of mine has {lacks}: give --modalities {has}\n"


def test_a_mistyped_column_is_named(call: Call, tmp_path: Path, encoders: dict[str, str]) -> None:
    manifest = manifest_of(tmp_path, "a", 2, audio=None, sound="a.wav", klasse="sad")
    code, _, err = call(*options(manifest, encoders))
    assert code == 2
    assert "or name the column that has it 'audio', not sound or klasse" in err
