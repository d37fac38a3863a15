"""The page of the benchmarks shows what is in their JSON, and nothing else."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mser.benchmarks.page import BENCHMARKS, HERE, load, render
from mser.benchmarks.plots import draw
from mser.benchmarks.results import (
    Measurement,
    Plot,
    Results,
    RunOptions,
    Table,
    main,
    ratios,
)
from mser.pipeline.compute.device import cores

BARS = Table(
    "reading (synthetic)",
    {"mser": {"GB/s": [17.25, 17.0, 18.0], "whole": "yes"}, "other": {"GB/s": 0.5, "whole": "no"}},
    "A note.",
    Plot("GB/s"),
)
LINES = Table(
    "growing (synthetic)",
    {
        f"{name}, {size}": {"utterances": float(size), "seconds": seconds * size, "store": name}
        for name, seconds in {"zarr": 0.5, "hdf5": 0.25}.items()
        for size in (1, 2, 4)
    },
    plot=Plot("seconds", log=True, x="utterances", by="store"),
)
PLAIN = Table("sizes (synthetic)", {"all": {"bytes": 123456.0}})


@pytest.fixture
def results() -> Results:
    return Results(
        "read",
        "python benchmarks/read.py",
        small=False,
        date="2026-01-02",
        machine={"GPU": "none", "cores": 2},
        versions={"torch": "2.11.0"},
        settings={"rounds": 9},
        tables=[BARS, LINES, PLAIN],
        missing={"a peer": "it is not installed"},
    )


def test_saved_results_load_unchanged(tmp_path: Path, results: Results) -> None:
    path = results.save(tmp_path)
    assert path == tmp_path / "read.json"
    assert Results.load(path) == results
    assert load(tmp_path) == {"read": results}


def test_the_page_has_all_tables_with_the_facts_of_the_run(results: Results) -> None:
    page = render({"read": results}, "pictures")
    assert "| mser | 17.2 (17–18) | yes |\n| other | 0.5 | no |\n\nA note." in page.text
    assert "| all | 123456 |" in page.text
    facts = "`python benchmarks/read.py`, 2026-01-02, GPU none, cores 2; torch 2.11.0; rounds 9."
    assert facts in page.text
    assert "- Not measured: a peer: it is not installed." in page.text
    assert "There was no GPU" in page.text
    assert "small form" not in page.text.split("## Reading")[1]
    for name in set(BENCHMARKS) - {"read", "texts"}:
        assert f"`benchmarks/{name}.py` was not run" in page.text
    pictures = re.findall(r"!\[(.*)\]\((.*)\)", page.text)
    assert [(path, ("read", title)) for title, path in pictures] == list(page.pictures.items())
    assert [title for title, _ in pictures] == [BARS.title, LINES.title]  # PLAIN has none


def test_a_note_that_tables_share_is_printed_once(results: Results) -> None:
    again = replace(BARS, title="reading again (synthetic)")
    text = replace(results, tables=[BARS, again]).markdown()
    assert text.count("A note.") == 1
    assert text.index("A note.") < text.index(again.title)


def test_the_page_states_the_small_form_and_a_missing_gpu(results: Results) -> None:
    small = render({"read": replace(results, small=True)}, "pictures").text
    assert "This page is of the small form" in small
    assert "## Targets" not in small  # the targets are for the full form
    assert "## Targets and results" in render({"read": results}, "pictures").text
    assert "**The small form**" in small.split("## Reading")[1]
    gpu = replace(results, machine={"GPU": "a large one"})
    assert "There was no GPU" not in render({"read": gpu}, "pictures").text


@pytest.mark.parametrize("table", [BARS, LINES], ids=["bars", "lines"])
def test_a_picture_shows_its_table_and_is_reproducible(tmp_path: Path, table: Table) -> None:
    draw(table, tmp_path / "one.svg")
    draw(table, tmp_path / "new" / "other.svg")
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "new" / "other.svg").read_text()
    assert table.plot
    for label in (table.plot.column, *(["zarr", "hdf5"] if table.plot.by else table.rows)):
        assert f"<!-- {label} -->" in drawn  # matplotlib's comment next to each text that it draws


def test_a_script_prints_the_results_that_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(options: RunOptions) -> Measurement:
        assert (options.small, options.rounds, options.only) == (True, 2, "reading")
        assert options.includes("reading")
        assert not options.includes("another")
        packages = ["pytest", "no-such-package"]
        return Measurement([BARS], {"utterances": 3}, {"a peer": "gone"}, packages)

    typed = ["read.py", "--small", "--only", "reading", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", typed)
    main("read", "Reads.", measure, rounds=(5, 2), sections=("reading", "another"))
    written = Results.load(tmp_path / "read.json")
    assert written.markdown() in capsys.readouterr().out
    assert written.command == "python benchmarks/read.py --small --only reading"
    assert written.settings == {"rounds": 2, "utterances": 3}
    assert written.versions["pytest"] == pytest.__version__
    assert "no-such-package" not in written.versions
    assert written.machine["cores"] == cores()


def test_ratios_are_taken_within_a_round() -> None:
    assert ratios([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == [2.0, 1.5, 2.5]


def test_the_page_in_docs_matches_the_measured_results() -> None:
    docs = HERE.parent / "docs"
    page = render(load(HERE / "measured"), "benchmarks")
    assert (docs / "benchmarks.md").read_text("utf-8") == page.text
    kept = {f"benchmarks/{path.name}" for path in (docs / "benchmarks").glob("*.svg")}
    assert kept == set(page.pictures)
