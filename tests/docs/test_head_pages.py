"""The pages of the heads and of training agree with the code."""

import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, fields
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import pytest
import torch

from mser.cli import app
from mser.heads import HEADS, Head, build_head
from mser.pipeline.preset_files import preset_names
from mser.pipeline.runs import Ablation, ablate
from mser.pipeline.train import TrainSettings
from mser.pipeline.train.presets import preset, read, settings_of
from mser.pipeline.train.settings import TUNABLE
from mser.tests.docs.test_examples import examples, run

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
HEAD_PAGES = sorted((DOCS / "heads").glob("*.md"))
PAGES = [
    *(
        ROOT / name
        for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md")
    ),
    *sorted(DOCS.glob("**/*.md")),
]

every_head = pytest.mark.parametrize("name", sorted(HEADS))
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def option_tables() -> Iterator[tuple[Path, list[str], str]]:
    """The option tables of all pages: the page, the heads in the heading, the table."""
    for page in HEAD_PAGES:
        for heading, body in re.findall(
            r"^## Options of (.+)\n((?:(?!## ).*\n)*)", text_of(page), re.MULTILINE
        ):
            yield page, re.findall(r"`(\S+?)`", heading), body


def rows(table: str) -> list[tuple[str, str]]:
    """The first two cells of each row whose first cell begins with a name in backticks."""
    return re.findall(r"^\| (`\w+`.*?) \| `(.+?)` \|", table, re.MULTILINE)


def value(written: str) -> Any:
    """Parse a default in the docs: TOML, and fractions such as ``1/4``."""
    plain = re.sub(r"(\d+)/(\d+)", lambda m: repr(int(m[1]) / int(m[2])), written)
    return tomllib.loads(f"value = {plain}")["value"]


def page_of(name: str) -> tuple[Path, str]:
    tables = [(page, table) for page, heads, table in option_tables() if name in heads]
    assert len(tables) == 1, f"{name} needs one table of options, has {len(tables)}"
    return tables[0]


@every_head
def test_the_page_of_a_head_has_all_its_options_with_their_defaults(name: str) -> None:
    _, table = page_of(name)
    documented = {}
    for cell, default in rows(table):
        option, head = re.fullmatch(r"`(\w+)`(?: \(of `(\w+)` only\))?", cell).groups()  # type: ignore[union-attr]
        if head in (None, name):
            documented[option] = value(default)
    actual = {
        option.name: list(option.default) if isinstance(option.default, tuple) else option.default
        for option in signature(HEADS[name]).parameters.values()
        if option.kind is Parameter.KEYWORD_ONLY
    }
    assert documented == actual
    types = {option: type(default) for option, default in actual.items()}
    assert {option: type(default) for option, default in documented.items()} == types


def test_the_readers_of_tables_read_values() -> None:
    """Without this, the tests of the tables could pass on tables that were not read."""
    assert rows("| `width` | `8` | what |\n| word | `9` | what |\n") == [("`width`", "8")]
    assert value("[1/4, 1]") == [0.25, 1]
    assert value('"scale"') == "scale"
    assert all(len(rows(table)) > 0 for _, _, table in option_tables())


@every_head
def test_the_readme_names_the_head(name: str) -> None:
    table = text_of(ROOT / "README.md").partition("| `--head` |")[2].partition("\n\n")[0]
    assert f"`{name}`" in table


@every_head
def test_the_numbers_of_parameters_are_those_of_the_head(name: str) -> None:
    page, _ = page_of(name)
    counts = []
    for modalities in (("speech", "text"), ("speech",)):
        with torch.device("meta"):
            head = build_head(
                name, dict.fromkeys(modalities, 768), 4, dict.fromkeys(modalities, 13)
            )
        counts.append(f"{sum(parameter.numel() for parameter in head.parameters()):,}")
    assert all(re.search(rf"(?<![\d,]){count}(?![\d,]*\d)", text_of(page)) for count in counts)
    overview = text_of(DOCS / "heads" / "README.md")
    assert re.search(
        rf"^\| `{name}` \| \[\w+\]\({page.name}\) \| .* \| {' | '.join(counts)} \|$".replace(
            f"{counts[0]} | {counts[1]}", rf"{counts[0]} \| {counts[1]}"
        ),
        overview,
        re.MULTILINE,
    )


def test_what_the_pages_call_a_part_of_the_code_is_there() -> None:
    """A name beside a file of heads/ is defined there; one in the equations, somewhere."""
    files = (ROOT / "heads").rglob("*.py")
    code = {str(path.relative_to(ROOT / "heads")): text_of(path) for path in files}
    others = [*(ROOT / "cache").glob("*.py"), *(ROOT / "pipeline" / "train").glob("*.py")]
    everything = "\n".join([*code.values(), *map(text_of, others)])
    name = r"`[\w.]+`"
    for page in HEAD_PAGES:
        for file in re.findall(r"`heads/([\w/]+\.py)`", text_of(page)):
            assert file in code, f"{page.name} names heads/{file}"
        for said, file in re.findall(
            rf"({name}(?:, {name})*) in `heads/([\w/]+\.py)`", text_of(page)
        ):
            for one in re.findall(r"\w+", said.replace(".", " ")):
                defined = rf"^ *(?:class|def) {one}\b|^{one}\b"
                assert re.search(defined, code[file], re.MULTILINE), f"{page.name}: {one} in {file}"
        for section in re.findall(
            r"^## Equations.*\n((?:(?!## ).*\n)*)", text_of(page), re.MULTILINE
        ):
            cells = [line.split(" | ")[-1] for line in section.splitlines() if line[:1] == "|"]
            named = " ".join(re.findall(r"`(\w[\w.]*)`", " ".join(cells)))
            for one in re.findall(r"\w+", named.replace(".", " ")):
                defined = rf"^ *(?:class|def) {one}\b|^{one} ="
                assert re.search(defined, everything, re.MULTILINE), f"{page.name}: {one}"


@pytest.mark.parametrize("kind", ["presets", "ablations"])
def test_each_preset_and_each_ablation_is_explained(kind: str) -> None:
    training = text_of(DOCS / "training.md")
    heads = "\n".join(map(text_of, HEAD_PAGES))
    for name in preset_names(kind):
        assert re.search(rf"^\| .*`{name}`.* \|", training, re.MULTILINE), f"training.md: {name}"
        if name != "synthetic":
            assert re.search(rf"(?:--preset |`){name}\b", heads), f"the heads' pages: {name}"


def test_each_setting_is_explained_with_its_default() -> None:
    section = text_of(DOCS / "training.md").partition("\n## Settings")[2].partition("\n## ")[0]
    documented = {cell.strip("`"): value(default) for cell, default in rows(section)}
    documented = {k: tuple(v) if isinstance(v, list) else v for k, v in documented.items()}
    actual = {field.name: field.default for field in fields(TrainSettings) if field.name in TUNABLE}
    assert MISSING not in actual.values()
    assert documented == {name: default for name, default in actual.items() if default is not None}
    assert all(f"| `{name}` | " in section for name in actual)


@pytest.mark.parametrize("command", ["train-head", "evaluate", "ablate"])
def test_each_option_of_stage_two_is_in_the_docs(command: str) -> None:
    from typer.main import get_command  # noqa: PLC0415

    everything = "\n".join(map(text_of, PAGES))
    known = {"--json", "--out"}
    for option in get_command(app).commands[command].params:  # type: ignore[attr-defined]
        for name in option.opts:
            if name.startswith("--") and name not in known:
                assert re.search(rf"{name}\b", everything), f"{command} {name}"


def test_the_examples_of_the_heads_run() -> None:
    counted, used = examples("heads/README.md")
    head: Head = run(counted)["head"]
    assert head.dims == {"speech": 768, "text": 768}
    output = run(used)["output"]
    assert output.logits.shape == (2, 4)
    assert output.logits.isfinite().all()


def test_the_head_in_the_docs_ignores_padding_and_uses_class_weights() -> None:
    late_fusion = run(examples("extending.md")[1], __name__="docs")["LateFusion"]
    torch.manual_seed(0)
    layers = {"speech": 3, "text": 2}
    head = late_fusion({"speech": 6, "text": 4}, 3, layers, width=8).eval()
    lengths = {"speech": torch.tensor([5, 2, 0]), "text": torch.tensor([0, 3, 1])}
    features = {m: torch.randn(3, layers[m], 7, dim) for m, dim in head.dims.items()}
    together = head(features, lengths).logits
    assert together.isfinite().all()
    for n in range(3):
        padded = {m: x[n : n + 1].clone() for m, x in features.items()}
        for m, x in padded.items():
            x[:, :, int(lengths[m][n]) :] = torch.nan
        alone = head(padded, {m: counts[n : n + 1] for m, counts in lengths.items()}).logits
        torch.testing.assert_close(alone[0], together[n], rtol=1e-5, atol=1e-5)
    labels = torch.tensor([0, 1, 1])
    plain = head(features, lengths, labels).loss
    head.objective.class_weights = torch.tensor([1.0, 5.0, 1.0])
    assert head(features, lengths, labels).loss != plain


def test_the_training_in_python_runs(
    filled_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = examples("training.md")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(filled_cache, tmp_path / "mser-demo" / "cache")
    trained = run(code.replace("epochs=20", "epochs=2, l2=0.1"))["run"]
    assert trained.path.resolve().parent == tmp_path / "runs"
    assert json.loads((trained.path / "metrics.json").read_text())["head"] == "linear"


def tomls() -> list[str]:
    return re.findall(r"```toml\n(.*?)```", text_of(DOCS / "training.md"), re.DOTALL)


def test_the_preset_in_the_docs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(tomls()[0])
    encoders = {"speech": None, "text": None}
    settings = settings_of(preset(str(path)), cache=tmp_path, encoders=encoders)
    assert (settings.head, settings.seeds, settings.batch_size) == ("hbf", (0, 1), 16)
    assert settings.head_options == {"width": 64, "mb": False}
    build_head("hbf", {"speech": 8, "text": 8}, 4, **settings.head_options)


def test_the_ablation_in_the_docs_runs(filled_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(tomls()[1])
    given = {"seeds": [0], "protocol": "hold-out:session=ses01"}
    table: Ablation = ablate(
        str(path),
        given,
        ["epochs=1", "optimizer=adamw"],
        tmp_path / "out",
        cache=filled_cache,
        encoders={"speech": None, "text": None},
        device="cpu",
    )
    assert [(row.system.name, row.missing) for row in table.rows] == [
        (system["name"], missing)
        for system in read(str(path), "ablations")["systems"]
        for missing in (None, "text")
    ]
    assert all(row.aggregate is not None for row in table.rows)
    assert "–" not in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")


@every_page
def test_the_target_of_every_link_exists(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text_of(page)):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", text_of(target), re.MULTILINE)
            plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
            assert anchor in [heading.replace(" ", "-") for heading in plain], f"{page}: {link}"
