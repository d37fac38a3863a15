"""The page of the benchmarks says what their JSON says, and nothing else."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mser.benchmarks.page import BENCHMARKS, HERE, load, page
from mser.benchmarks.plots import draw
from mser.benchmarks.results import Asked, Found, Plot, Results, Table, main, ratios
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
def found() -> Results:
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


def test_results_come_back_from_json_as_they_were(tmp_path: Path, found: Results) -> None:
    path = found.save(tmp_path)
    assert path == tmp_path / "read.json"
    assert Results.load(path) == found
    assert load(tmp_path) == {"read": found}


def test_the_page_has_all_tables_with_their_surroundings(found: Results) -> None:
    made = page({"read": found}, "pictures")
    assert "| mser | 17.2 (17–18) | yes |\n| other | 0.5 | no |\n\nA note." in made.text
    assert "| all | 123456 |" in made.text
    facts = "`python benchmarks/read.py`, 2026-01-02, GPU none, cores 2; torch 2.11.0; rounds 9."
    assert facts in made.text
    assert "- Not measured: a peer: it is not installed." in made.text
    assert "No GPU was at hand" in made.text
    assert "small form" not in made.text.split("## Reading")[1]
    for name in set(BENCHMARKS) - {"read"}:
        assert f"`benchmarks/{name}.py` was not run" in made.text
    pictures = re.findall(r"!\[(.*)\]\((.*)\)", made.text)
    assert [(path, ("read", title)) for title, path in pictures] == list(made.pictures.items())
    assert [title for title, _ in pictures] == [BARS.title, LINES.title]  # PLAIN has none


def test_a_note_of_several_tables_stands_under_the_first(found: Results) -> None:
    again = replace(BARS, title="reading again (synthetic)")
    text = replace(found, tables=[BARS, again]).markdown()
    assert text.count("A note.") == 1
    assert text.index("A note.") < text.index(again.title)


def test_the_page_says_that_it_is_of_the_small_form_or_of_a_gpu(found: Results) -> None:
    small = page({"read": replace(found, small=True)}, "pictures").text
    assert "This page is of the small form" in small
    assert "What was aimed at" not in small  # its shapes are toys, and no aim is for them
    assert "What was aimed at" in page({"read": found}, "pictures").text
    assert "**The small form**" in small.split("## Reading")[1]
    gpu = replace(found, machine={"GPU": "a large one"})
    assert "No GPU was at hand" not in page({"read": gpu}, "pictures").text


@pytest.mark.parametrize("table", [BARS, LINES], ids=["bars", "lines"])
def test_a_picture_shows_its_table_and_is_the_same_each_time(tmp_path: Path, table: Table) -> None:
    draw(table, tmp_path / "one.svg")
    draw(table, tmp_path / "new" / "other.svg")
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "new" / "other.svg").read_text()
    assert table.plot
    for said in (table.plot.column, *(["zarr", "hdf5"] if table.plot.by else table.rows)):
        assert f"<!-- {said} -->" in drawn  # matplotlib's comment beside a text that it draws


def test_a_script_prints_what_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(asked: Asked) -> Found:
        assert (asked.small, asked.rounds, asked.only) == (True, 2, "reading")
        assert asked.wants("reading")
        assert not asked.wants("another")
        return Found([BARS], {"utterances": 3}, {"a peer": "gone"}, ["pytest", "no-such-package"])

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


def test_ratios_are_those_of_the_same_round() -> None:
    assert ratios([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == [2.0, 1.5, 2.5]


def test_the_page_in_the_documentation_is_that_of_the_results() -> None:
    docs = HERE.parent / "docs"
    made = page(load(HERE / "measured"), "benchmarks")
    assert (docs / "benchmarks.md").read_text("utf-8") == made.text
    kept = {f"benchmarks/{path.name}" for path in (docs / "benchmarks").glob("*.svg")}
    assert kept == set(made.pictures)
