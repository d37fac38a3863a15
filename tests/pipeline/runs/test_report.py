"""The page on finished runs: its content, and that it needs no other file."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mser.pipeline.errors import UsageError
from mser.pipeline.evaluation.compare import compare
from mser.pipeline.evaluation.metrics import aggregate
from mser.pipeline.evaluation.predictions import read_predictions
from mser.pipeline.runs.report import report
from mser.pipeline.train import train_head
from mser.tests.conftest import Call
from mser.tests.support.standard_error import is_one_sentence
from mser.tests.support.train_runs import (
    CLASSES,
    made,
    made_cache,
    make_utterance,
    official,
    read_json,
)

_VOID = {"meta", "br"}  # never closed in HTML


class Page(HTMLParser):
    """Reads a page into sections of tables, and refuses tags that are not closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.heading = ""
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in _VOID or str(self.get_starttag_text()).endswith("/>"):
            return
        self.open.append(tag)
        if tag in ("h1", "h2", "h3"):
            self.heading = ""
        if tag == "tr":
            self.tables.setdefault(self.heading, []).append([])
        if tag in ("td", "th"):
            self.tables[self.heading][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not set(self.open) & {"style", "title"}:
            self.text += data
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.heading += data
        if {"td", "th"} & set(self.open):
            self.tables[self.heading][-1][-1] += data

    def rows(self, heading: str) -> dict[str, list[str]]:
        """First cell → the others, of the table below a heading."""
        (found,) = (rows for name, rows in self.tables.items() if name.startswith(heading))
        return {row[0]: row[1:] for row in found}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of finished runs. Do not change them: copy them."""
    root = tmp_path_factory.mktemp("report")
    corpus = official(test=16)
    unknown = make_utterance("train/nobody", split="train", label=None)
    cache = made_cache(root / "cache", [*corpus, unknown])
    other = made_cache(root / "other", official(test=12))
    return {
        "plain": train_head(made(cache, root / "plain", "epochs=1")).path,
        "tuned": train_head(
            made(cache, root / "tuned", "learning_rate=0.05", "head.dropout=0.25", seeds=(0, 1))
        ).path,
        "elsewhere": train_head(made(other, root / "elsewhere", "epochs=1")).path,
    }


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


# One run ------------------------------------------------------------------------------------------


def test_the_page_shows_the_content_of_the_run_folder(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    made_page = report([runs["tuned"]], tmp_path / "new folder" / "page.html")
    page = Page(made_page.path)
    metrics = read_json(runs["tuned"] / "metrics.json")
    wa = metrics["aggregate"]["wa"]

    scores = page.rows("Scores")
    assert scores["mean ± std"][0] == f"{percent(wa['mean'])} ± {percent(wa['std'])}"
    assert scores["pooled"][0].startswith(percent(wa["pooled"]))
    assert scores["95 % interval"][0] == " … ".join(map(percent, wa["pooled_ci95"]))
    assert scores["chance"][0] == percent(metrics["chance"]["wa"]["mean"])
    assert scores["seeds together"][0] == percent(metrics["seeds_together"]["wa"]["pooled"])
    plain = Page(report([runs["plain"]], tmp_path / "plain.html").path)  # one seed
    assert "seeds together" not in plain.rows("Scores")

    of_class = page.rows("Classes")
    for name in CLASSES:
        known = metrics["pooled"]["per_class"][name]
        assert of_class[name][1] == ("–" if known["recall"] is None else percent(known["recall"]))
        assert of_class[name][3] == str(known["support"])

    confusion = page.rows("Confusion matrix")
    for name, counts in zip(CLASSES, metrics["pooled"]["confusion"], strict=True):
        shares = [f"{percent(n / max(1, sum(counts)))} %{n}" for n in counts]
        assert confusion[name] == shares

    assert page.rows("Settings") == {
        "setting": ["value", "default"],
        "learning_rate": ["0.05", "0.001"],
        "optimizer": ["adamw", "auto"],
        "epochs": ["4", "60"],
        "head.dropout": ["0.25", "0.0"],
    }
    folds = page.tables["Folds"]
    assert [row[:2] for row in folds[1:]] == [["official", "0"], ["official", "1"]]
    assert page.rows("Excluded") == {"utterances": ["reason"], "1": ["it has no label"]}
    for fact in (metrics["protocol"], "small (key ", "1 fold x 2 seeds (0, 1)"):
        assert fact in page.text


def test_the_curves_are_of_every_fold_and_seed_and_their_mean(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    page = Page(report([runs["tuned"]], tmp_path / "page.html").path)
    # Two seeds: the loss on two parts, and the monitor on one; each with the mean.
    drawn = [str(a.get("style")) for tag, a in page.tags if tag == "path"]
    for colour, thin, thick in (("var(--two)", 2, 1), ("var(--one)", 4, 2)):
        curves = [style for style in drawn if f"fill: none; stroke: {colour}" in style]
        assert sum("stroke-opacity: 0.35" in style for style in curves) == thin
        assert len([style for style in curves if "stroke-opacity" not in style]) == thick


def test_notes_and_leakage_are_on_the_page(runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / "run")
    metrics = read_json(run / "metrics.json")
    metrics["notes"] = ["synthetic voices"]
    metrics["leakage"]["lines"] = ["train and test share 3 texts"]
    (run / "metrics.json").write_text(json.dumps(metrics))
    text = Page(report([run], tmp_path / "page.html").path).text
    assert "synthetic voices" in text
    assert "train and test share 3 texts" in text


def test_the_page_needs_no_network_and_no_script(runs: dict[str, Path], tmp_path: Path) -> None:
    page = Page(report(list(runs.values()), tmp_path / "page.html").path)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"url\((?!#)|@import|https?://", page.source)


def test_names_and_values_of_a_run_are_escaped(runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / '<b onclick="x">&amp; run')
    hostile = "<script>alert(1)</script>\"'&"
    for name in ("metrics.json", "environment.json", "config.toml", "predictions.csv"):
        text = (run / name).read_text()
        if name != "config.toml":
            quoted = hostile.replace('"', '\\"') if name.endswith("json") else "<script>alert(1)"
            text = text.replace("happy", quoted)
        (run / name).write_text(text)
    environment = read_json(run / "environment.json")
    (run / "environment.json").write_text(json.dumps({**environment, "command": hostile}))
    page = Page(report([run, runs["elsewhere"]], tmp_path / "page.html").path)
    assert "script" not in {tag for tag, _ in page.tags}
    assert hostile in page.text
    assert '<b onclick="x">&amp; run' in page.text


# Several runs -------------------------------------------------------------------------------------


def test_runs_on_the_same_utterances_are_compared(runs: dict[str, Path], tmp_path: Path) -> None:
    page = Page(report([runs["plain"], runs["tuned"]], tmp_path / "page.html").path)
    found = compare(runs["plain"], runs["tuned"])
    table = page.rows("Comparison on the same 16 test utterances")
    cell = table["tuned − plain"][0]
    assert cell.startswith(f"{100 * found.metrics['wa'].difference:+.1f}")
    assert cell.endswith("p < 0.001")
    assert "p by a paired bootstrap of 16 dialogues, 2000 draws" in page.text
    overview = page.rows("mser report")
    assert set(overview) == {"run", "plain", "tuned"}
    labels = [str(attributes.get("aria-label")) for tag, attributes in page.tags if tag == "svg"]
    assert len([label for label in labels if label.endswith(" of each run")]) == 4


def test_the_page_states_what_the_bootstrap_draws(
    call: Call, runs: dict[str, Path], tmp_path: Path
) -> None:
    both = [runs["plain"], runs["tuned"]]
    metrics = read_json(runs["tuned"] / "metrics.json")
    assert metrics["intervals"] == {"by": "dialogue", "number": 16}
    page = Page(report(both, tmp_path / "page.html").path)
    assert "a bootstrap interval over 16 dialogues of the test parts" in page.text
    page = Page(report(both, tmp_path / "page.html", "utterance").path)
    assert "a bootstrap interval over 16 utterances of the test parts" in page.text
    assert "p by a paired bootstrap of 16 utterances, 2000 draws" in page.text
    alone = aggregate(read_predictions(runs["tuned"]).parts)
    shown = page.rows("Scores")["95 % interval"]
    assert shown[0] == " … ".join(map(percent, alone["wa"]["pooled_ci95"]))
    code, _, err = call("report", *both, "--groups", "session")
    assert code == 2
    assert is_one_sentence(err)
    assert "no test utterance has a session" in err


def test_the_page_of_an_older_run_states_utterances(runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / "run")
    metrics = read_json(run / "metrics.json")
    del metrics["intervals"]
    (run / "metrics.json").write_text(json.dumps(metrics))
    lines = (run / "predictions.csv").read_text().splitlines()
    older = "\n".join(line.rsplit(",", 3)[0] for line in lines)
    (run / "predictions.csv").write_text(older)
    page = Page(report([run], tmp_path / "page.html").path)
    assert "a bootstrap interval over utterances of the test parts" in page.text
    with pytest.raises(UsageError, match=r"run' does not hold the dialogue of its utterances"):
        report([run], tmp_path / "page.html", "dialogue")


def test_runs_on_other_utterances_are_shown_and_not_compared(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    page = Page(report([runs["plain"], runs["elsewhere"]], tmp_path / "page.html").path)
    assert set(page.rows("mser report")) == {"run", "plain", "elsewhere"}
    assert "Comparison" not in page.text
    three = Page(report(list(runs.values()), tmp_path / "page.html").path)
    (heading,) = (name for name in three.tables if name.startswith("Comparison"))
    assert len(three.tables[heading]) == 2  # the head, and one pair of the three


def test_runs_with_the_same_name_are_shown_by_path(runs: dict[str, Path], tmp_path: Path) -> None:
    for folder in ("a", "b"):
        shutil.copytree(runs["plain"], tmp_path / folder / "run")
    page = Page(report([tmp_path / "a" / "run", tmp_path / "b" / "run"], tmp_path / "x.html").path)
    names = set(page.rows("mser report")) - {"run"}
    assert names == {str(tmp_path / "a" / "run"), str(tmp_path / "b" / "run")}


# On the command line ------------------------------------------------------------------------------


def test_the_command_prints_the_path_of_the_page(call: Call, runs: dict[str, Path]) -> None:
    code, out, err = call("report", runs["plain"], runs["plain"], "--out", "page.html")
    assert (code, err) == (0, "")
    assert out == "page.html: 1 run; open it in a browser\n"
    assert Page(Path("page.html")).tables
    code, out, _ = call("report", runs["plain"], runs["tuned"], "--json")
    assert code == 0
    assert json.loads(out) == {
        "report": "report.html",
        "runs": [str(runs["plain"]), str(runs["tuned"])],
    }


@pytest.mark.parametrize(
    ("file", "content", "code"),
    [
        ("metrics.json", None, 2),
        ("metrics.json", "{", 2),
        ("metrics.json", "{}", 1),
        ("metrics.json", "[]", 1),
        ("environment.json", "{}", 1),
        ("config.toml", "head = ", 2),
        ("log.jsonl", "not a line\n", 1),
        ("log.jsonl", "[1]\n", 1),
    ],
)
def test_a_damaged_run_is_one_sentence_without_a_page(
    call: Call, runs: dict[str, Path], tmp_path: Path, file: str, content: str | None, code: int
) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / "run")
    (run / file).unlink() if content is None else (run / file).write_text(content)
    ended, out, err = call("report", run, "--out", "page.html")
    assert (ended, out) == (code, "")
    assert is_one_sentence(err)
    assert not Path("page.html").exists()


def test_the_page_cannot_replace_a_folder(
    call: Call, runs: dict[str, Path], tmp_path: Path
) -> None:
    code, _, err = call("report", runs["plain"], "--out", tmp_path)
    assert code == 2
    assert is_one_sentence(err)


def test_a_run_without_its_log_has_no_curves(runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / "run")
    (run / "log.jsonl").unlink()
    page = Page(report([run], tmp_path / "page.html").path)
    assert " by epoch" not in "".join(str(a.get("aria-label")) for _, a in page.tags)
    assert "holds no log.jsonl" in page.text
