"""Attributes, votes and further labels as the corpora give them, with the traps of the releases."""

import csv
import shutil
from pathlib import Path

import pytest

from mser.pipeline.corpora import crema_d, iemocap, meld, synthetic
from mser.pipeline.corpora.manifest_file import read_manifest
from mser.pipeline.errors import PipelineError
from mser.tests.support.crema_d_tree import write_crema_d
from mser.tests.support.iemocap_tree import HEADER, ROWS, labels, save, write_iemocap

LABEL = "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[{}]\n"


def of_iemocap(root: Path, lines: str, attributes: str = "2.0000, 3.5000, 4.0000"):
    save(labels(root, "Ses01F_impro01"), HEADER + LABEL.format(attributes) + lines + "\n")
    return next(u for u in iemocap.load(root).utterances if u.id == ROWS[0].id)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_iemocap(tmp_path / "IEMOCAP_full_release")


def test_iemocap_has_the_means_of_the_attributes_and_the_votes(release: Path) -> None:
    utterance = of_iemocap(
        release,
        "C-E2:\tNeutral;\t()\nC-E3:\tNeutral state;\t()\nC-E4:\tAnger; Frustration;\t(sad)\n"
        "C-F1:\tHappiness;\t()\nC-M1:\tHappiness;\t()\nA-E3:\tval 5; act 5; dom  5;\t()\n",
    )
    assert utterance.attributes == {"valence": 2.0, "arousal": 3.5, "dominance": 4.0}
    # Two of one evaluator are two votes; the actors' own categories are none.
    assert utterance.votes == {"neu": 2, "ang": 1, "fru": 1}


def test_the_votes_of_iemocap_belong_to_the_line_above(release: Path) -> None:
    utterances = iemocap.load(release).utterances
    assert all(u.votes == {"neu": 1, "ang": 1, "fru": 1} for u in utterances)
    assert all(u.attributes == dict.fromkeys(u.attributes, 2.5) for u in utterances)


@pytest.mark.parametrize("attributes", ["nan, 3.5, 4.0", ", 3.5, 4.0", "-1.0, 3.5, 4.0"])
def test_an_attribute_that_iemocap_lacks_is_not_known(release: Path, attributes: str) -> None:
    assert of_iemocap(release, "", attributes).attributes == {"arousal": 3.5, "dominance": 4.0}


VOTES = (
    '"","A","D","F","H","N","S","fileName","numResponses","emoVote"\n'
    '"100001",5,5,0,0,1,0,"1001_IEO_ANG_HI",11,"A:D"\n'
    '"100002",0,0,1,0,9,0,"1001_IEO_FEA_LO",10,"N"\n'
    '"200001",9,0,0,0,1,0,"1001_IEO_ANG_HI",10,"A"\n'
    '"300001",0,8,0,0,0,0,"1001_IEO_ANG_HI",8,"D"\n'
)


def rated_crema_d(root: Path, votes: str) -> Path:
    write_crema_d(root)
    (root / "processedResults").mkdir()
    (root / "processedResults" / "tabulatedVotes.csv").write_text(votes)
    return root


def test_crema_d_has_the_votes_from_the_voice_alone(tmp_path: Path) -> None:
    corpus = crema_d.load(rated_crema_d(tmp_path / "crema", VOTES))
    votes = {u.id: {k: v for k, v in u.votes.items() if v} for u in corpus.utterances}
    assert votes["1001_IEO_ANG_HI"] == {"anger": 5, "disgust": 5, "neutral": 1}
    assert votes["1001_IEO_FEA_LO"] == {"fear": 1, "neutral": 9}
    assert votes["1002_IEO_FEA_LO"] == {}
    assert corpus.columns["perceived_voice"] == {"1001_IEO_FEA_LO": "neutral"}  # not the tie
    assert corpus.columns["perceived_face"] == {"1001_IEO_ANG_HI": "anger"}
    assert corpus.columns["perceived_both"] == {"1001_IEO_ANG_HI": "disgust"}
    heard = corpus.in_classes("perceived_voice")
    assert [u.id for u in heard.utterances if u.label == "neutral"] == ["1001_IEO_FEA_LO"]


@pytest.mark.parametrize(
    "row",
    ['"400001",1,0,0,0,0,0,"1001_IEO_ANG_HI",1,"A"', '"100001",x,0,0,0,0,0,"1001_IEO_ANG_HI",1,""'],
)
def test_a_row_that_is_not_of_crema_d_is_one_sentence(tmp_path: Path, row: str) -> None:
    root = rated_crema_d(tmp_path / "crema", f"{VOTES.splitlines()[0]}\n{row}\n")
    with pytest.raises(PipelineError, match=r"tabulatedVotes.csv, line 2: it is not a row of"):
        crema_d.load(root)


def test_the_sentiment_of_meld_is_a_label_of_its_own(meld_original: Path, tmp_path: Path) -> None:
    root = shutil.copytree(meld_original, tmp_path / "MELD.Raw")
    for path in root.rglob("*_sent_emo.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0], "Sentiment"])
            writer.writeheader()
            for number, row in enumerate(rows):
                sentiment = ("Negative", "positive ", "neutral", "0")[number % 4]
                writer.writerow({**row, "Sentiment": sentiment})
    corpus = meld.load(root)
    ids = [u.id for u in corpus.utterances if u.id.startswith("train/")]
    values = [corpus.columns["sentiment"].get(id) for id in ids]
    assert values[:4] == ["negative", "positive", "neutral", None]
    chosen = corpus.in_classes("sentiment")
    assert chosen.classes == ("negative", "neutral", "positive")
    assert [u.label for u in chosen.utterances if u.id in ids] == values
    assert corpus.in_classes() is corpus
    assert meld.load(meld_original).columns == {}


def test_the_synthetic_corpus_has_attributes_near_those_of_its_emotion(corpus_root: Path) -> None:
    utterances = synthetic.load(corpus_root).utterances
    assert all(1 <= value <= 5 for u in utterances for value in u.attributes.values())
    assert all(sum(u.votes.values()) == 5 for u in utterances)
    for emotion, means in synthetic.ATTRIBUTES.items():
        rows = [list(u.attributes.values()) for u in utterances if u.label == emotion]
        found = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        assert found == pytest.approx(means, abs=0.45)
    agreed = [max(u.votes, key=lambda name: u.votes[name]) == u.label for u in utterances]
    assert sum(agreed) / len(agreed) > 0.7


def test_a_synthetic_corpus_of_an_older_mser_has_neither(corpus_root: Path, tmp_path: Path) -> None:
    root = shutil.copytree(corpus_root, tmp_path / "old")
    table = root / "utterances.csv"
    kept = [",".join(line.split(",")[:8]) for line in table.read_text().splitlines()]
    table.write_text("".join(f"{line}\n" for line in kept))
    assert all(not u.attributes and not u.votes for u in synthetic.load(root).utterances)


def read(tmp_path: Path, text: str):
    path = tmp_path / "own.csv"
    path.write_text(text)
    return read_manifest(path, "own")


def test_a_manifest_has_attributes_and_votes(tmp_path: Path) -> None:
    corpus = read(
        tmp_path,
        "id,label,Valence,attribute:warmth,votes:Angry,votes:calm,notes\n"
        "a,Angry,2.5,-7,3,0,x\nb,,,1e3,,2,\nc,Angry,,,,,\n",
    )
    a, b, c = corpus.utterances
    assert a.attributes == {"valence": 2.5, "warmth": -7}
    assert a.votes == {"Angry": 3, "calm": 0}  # spelled as the label
    assert (b.attributes, b.votes) == ({"warmth": 1000}, {"calm": 2})
    assert (c.attributes, c.votes) == ({}, {})
    assert corpus.classes == ("Angry", "calm")
    assert set(corpus.columns) == {"notes"}


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("valence", "high", "its valence is 'high': write a number, or leave the cell empty"),
        ("arousal", "nan", "its arousal is 'nan'"),
        ("attribute:warmth", "inf", "its attribute:warmth is 'inf'"),
        ("votes:sad", "-1", "its votes:sad is -1: write 0 or more"),
        ("attribute:duration", "1", "has the name of a column of mser: rename it"),
    ],
)
def test_a_wrong_number_names_the_line(tmp_path: Path, column: str, value: str, match: str) -> None:
    with pytest.raises(PipelineError, match=f"own.csv, line 2: .*{match}"):
        read(tmp_path, f"id,{column}\na,{value}\n")


def test_numbers_of_a_parquet_file_are_read(tmp_path: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    path = tmp_path / "own.parquet"
    table = {"id": ["a", "b"], "valence": [1.5, float("nan")], "votes:sad": [1, 0], "size": [3, 4]}
    pq.write_table(pa.table(table), path)
    a, b = read_manifest(path, "own").utterances
    assert (a.attributes, a.votes) == ({"valence": 1.5}, {"sad": 1})
    assert (b.attributes, b.votes) == ({}, {"sad": 0})
