"""The files that tools expect at the root of the repository agree with the package."""

import re
import tomllib
from pathlib import Path

import pytest
import typer
import yaml  # type: ignore[import-untyped]

import mser
from mser.cli import app
from mser.tests.test_wheel import repository_files

ROOT = Path(__file__).parents[1]


def test_the_hooks_are_the_checks_of_make_lint() -> None:
    checks = re.search(r"^lint: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert checks
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert [hook["entry"] for hook in hooks] == [f"make {check}" for check in checks[1].split()]
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in hooks)


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # The keys that the format requires, each of which must have a value.
    assert all(citation[key] for key in ("cff-version", "message", "title", "authors"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"] == project["name"] == "mser"
    assert citation["version"] == mser.__version__
    assert citation["license"] == project["license"]
    assert citation["abstract"] == project["description"]
    assert citation["authors"] == [{"name": "The mser authors"}]


def test_the_workflow_runs_both_commands_on_every_supported_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["test"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make test", "make lint"]
    assert job["strategy"]["matrix"]["python-version"] == ["3.11", "3.12", "3.13"]


def test_every_issue_template_is_a_form() -> None:
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.name != "config.yml":
            assert form["name"]
            assert form["description"]
            assert all(field["attributes"]["label"] for field in form["body"])


def copied_by_docker() -> list[str]:
    lines = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return [name for line in lines for name in line.split()]


def copied_by_apptainer() -> list[str]:
    files = (ROOT / "mser.def").read_text().partition("%files\n")[2].partition("\n\n")[0]
    return [line.split()[0] for line in files.splitlines()]


@pytest.mark.parametrize("copied", [copied_by_docker, copied_by_apptainer])
def test_a_container_gets_all_that_the_package_is_built_from(copied) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    modules = {"__init__.py", "__main__.py", "cli.py", "py.typed"}
    assert {*copied()} == {
        "pyproject.toml",
        project["readme"],
        *project["license-files"],
        *rooms,
        *modules,
    }
    assert all((ROOT / name).exists() for name in copied())


@pytest.mark.parametrize("recipe", ["Dockerfile", "mser.def"])
def test_the_commands_of_a_recipe_exist(recipe: str) -> None:
    text = (ROOT / recipe).read_text()
    command = typer.main.get_command(app)
    used = re.findall(r"mser(?:\.sif)? (extract .+)", text)
    assert used
    for line in used:
        name, *words = line.split()
        command.commands[name].make_context("mser", words)  # type: ignore[attr-defined]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "mser" in project["scripts"]
    minor = int(re.search(r"python:3\.(\d+)-slim", text)[1])  # type: ignore[index]
    assert f"Programming Language :: Python :: 3.{minor}" in project["classifiers"]


def test_the_page_of_the_package_has_no_relative_link() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    links = re.findall(r"\]\(([^)]*)\)", (ROOT / project["readme"]).read_text())
    assert [link for link in links if not link.startswith("https://")] == []


def test_the_source_distribution_lists_every_file_at_the_root() -> None:
    """Files for git alone are not part of it, and it has two of its own."""
    text = (ROOT / "MANIFEST.in").read_text()
    included = {
        name for line in re.findall("^include (.+)$", text, re.MULTILINE) for name in line.split()
    }
    modules = {path.name for path in ROOT.glob("*.py")} | {"py.typed"}
    automatic = {"pyproject.toml", "LICENSE", "MANIFEST.in", *modules}
    files = {name for name in repository_files() if "/" not in name}
    assert files - {".gitignore", "PKG-INFO", "setup.cfg"} == included | automatic
