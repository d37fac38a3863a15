"""The files that tools expect at the root of the repository agree with the package."""

import re
import tomllib
from pathlib import Path

import yaml  # type: ignore[import-untyped]

import mser

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
