"""``mser reproduce``: from a corpus in IEMOCAP's layout to the published table beside ours."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from mser.pipeline.runs import reproduction
from mser.pipeline.runs.ablation import Ablation, System, SystemScores
from mser.pipeline.runs.reproduction import Plan, Reproduction, reproduction_names
from mser.tests.conftest import Call, make_once
from mser.tests.support.iemocap_tree import ABSENT, write_iemocap

SMALL = ("--set", "epochs=2", "--device", "cpu", "--workers", "0")


@pytest.fixture(scope="session")
def iemocap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree in IEMOCAP's layout with five sessions. Do not change it: copy it."""
    return make_once(tmp_path_factory, "iemocap", write_iemocap)


def test_a_score_that_is_not_a_percentage_stays_as_it_is() -> None:
    scored = {"mean": 0.53, "std": 0.01, "pooled": 0.541, "pooled_ci95": [0.5, 0.58]}
    settings: Any = None
    paper = {"ccc": 0.55, "wa": 52.0}
    system = System("mine", settings, paper)
    row = SystemScores(system, None, {"ccc": scored, "wa": scored})
    table = Ablation(Path("a"), "t", [], ["ccc", "wa"], [row])
    plan = Plan("t", "s", [], {"mine": paper}, [], [])
    done = Reproduction(Path("r"), Path("p"), plan, table, [])
    lines = done.markdown().splitlines()
    assert "| mine | CCC | 0.550 | 0.530 ± 0.010 | 0.541 [0.500, 0.580] | -0.020 |" in lines
    assert "| mine | WA | 52.00 | 53.00 ± 1.00 | 54.10 [50.00, 58.00] | +1.00 |" in lines
    assert not any("in %" in line for line in lines)
    assert list(csv.reader(done.csv().splitlines()))[1][2:5] == ["0.55", "0.53", "0.01"]
    assert "mine: CCC 0.550, WA 52.00 %" in str(plan)
    assert "| 0.530 ± 0.010 | 0.550 | 53.00 ± 1.00 | 52.00 |" in table.markdown()


def test_the_chain_ends_with_the_published_number_beside_ours(
    call: Call,
    iemocap: Path,
    encoders: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    speech = ("--speech-encoder", encoders["speech"])
    typed = ["reproduce", "superb-er", "--root", iemocap, "--cache", "cache", *speech, *SMALL]

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reproduction, "ablate", interrupted)  # Ctrl-C after the extraction
        assert call(*typed)[0] == 130
    code, said, err = call(*typed)
    assert code == 0, err
    assert "nothing new, 21 were there before" in said
    out = tmp_path / "reproductions" / "superb-er"
    run = out / "wav2vec-2-0-base-mix-of-all-layers"

    # Our score, from the predictions alone: accuracy in each session, then over all of them.
    folds: dict[str, list[bool]] = {}
    with (run / "predictions.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            folds.setdefault(row["fold"], []).append(row["label"] == row["predicted"])
    assert sorted(folds) == ["Ses01", "Ses02", "Ses03", "Ses04", "Ses05"]
    mean = 100 * sum(sum(hits) / len(hits) for hits in folds.values()) / len(folds)
    every = [hit for hits in folds.values() for hit in hits]
    pooled = 100 * sum(every) / len(every)
    (wa,) = [line for line in said.splitlines() if "| WA |" in line]
    name, metric, published, ours, pooled_cell, gap = (cell.strip() for cell in wa.split("|")[1:-1])
    assert (name, metric) == ("wav2vec 2.0 Base, mix of all layers", "WA")
    assert (published, gap) == ("63.43", f"{mean - 63.43:+.2f}")
    assert ours.startswith(f"{mean:.2f} ± ")
    assert pooled_cell.startswith(f"{pooled:.2f} [")

    # Every difference: those of the table, and those of this run and of this corpus.
    lines = said.splitlines()
    assert any("SUPERB draws a random fifth" in line for line in lines)
    assert f"- Changed for this run: the speech encoder is {encoders['speech']}, not " in said
    assert "facebook/wav2vec2-base; epochs=2." in said
    assert "test utterances, not 5531." in said
    assert f"1 utterances have no features of speech, such as {ABSENT}: " in said
    assert "| – |" in next(line for line in lines if "| UA |" in line)  # SUPERB has no UA
    assert (out / "reproduction.md").read_text() in said
    assert (out / "report.html").is_file()
    assert list((out / "tables").glob("*.csv"))
    with (out / "reproduction.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["metric"], float(row["published"])) == ("wa", 63.43)
    assert float(row["mean"]) == pytest.approx(mean)
    assert float(row["pooled"]) == pytest.approx(pooled)

    # The same command again trains nothing, and the features alone are enough for it.
    monkeypatch.setattr("mser.pipeline.train.runner.run_training", None)
    without_root = [word for word in typed if word not in ("--root", iemocap)]
    code, said, err = call(*without_root, "--json")
    assert code == 0, err
    again = json.loads(said)
    assert again["published_percent"] == {name: {"wa": 63.43}}
    assert 100 * again["rows"][0]["aggregate"]["wa"]["mean"] == pytest.approx(mean)


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    call: Call, iemocap: Path, tmp_path: Path
) -> None:
    code, said, err = call("reproduce", "mgcma-table2", "--root", iemocap, "--dry-run")
    assert code == 0, err
    assert "S0 all: WA 78.87 %, UA 80.24 %" in said
    assert "S4 none: WA 76.20 %, UA 77.62 %" in said
    assert (
        f"1. mser extract --dataset iemocap --root {iemocap} --modalities speech,text "
        "--speech-encoder facebook/wav2vec2-base --text-encoder bert-base-uncased --layers last "
        "--frames all"
    ) in said
    assert "The paper does not say whether its encoders are frozen." in said
    assert "DAM: activations" in said
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("table", reproduction_names())
def test_every_table_has_numbers_a_source_and_differences(call: Call, table: str) -> None:
    code, said, err = call("reproduce", table, "--dry-run", "--json")
    assert code == 0, err
    plan = json.loads(said)
    assert plan["source"] != "no source given"
    assert plan["differences"]
    assert all(plan["published_percent"].values())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("superb-er", "--root", "nowhere"),
            "there is no folder 'HERE/nowhere': give the folder of iemocap with --root",
        ),
        (
            ("superb-er", "--cache", "empty"),
            "superb-er needs the corpus iemocap, and empty does not hold its features by "
            "facebook/wav2vec2-base: give the folder of iemocap in --root",
        ),
        (
            ("superb",),
            "unknown table (a file of your own ends in .toml) 'superb': did you mean 'superb-er'? "
            f"(known: {', '.join(reproduction_names())})",
        ),
        (
            ("superb-er", "--text-encoder", "bert-base-uncased"),
            "superb-er reads no text: leave out --text-encoder",
        ),
        (
            ("own.toml",),
            "own.toml has no table [reproduction]: run mser ablate --preset own.toml",
        ),
    ],
)
def test_what_is_missing_is_one_sentence(
    call: Call, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "own.toml").write_text('title = "Own"\npreset = "synthetic"\nsystems = []\n')
    code, out, err = call("reproduce", *arguments)
    assert (code, out, err) == (2, "", f"mser: {sentence.replace('HERE', str(tmp_path))}\n")
