"""The wheel: the package and nothing else, whole."""

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Of the files at the root, these go into the wheel: the others are for the repository alone.
AT_THE_ROOT = ("__init__.py", "__main__.py", "cli.py", "py.typed")


def repository_files() -> list[str]:
    """The files that git knows or would add, below the root, or those of a source distribution."""
    sources = ROOT / "mser.egg-info" / "SOURCES.txt"
    if not (ROOT / ".git").exists():
        names = [Path(name).as_posix() for name in sources.read_text().splitlines()]  # not ./name
        return [name for name in names if (ROOT / name).is_file()]
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a copy, so that the repository stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in repository_files():
        copy = folder / "source" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "wheel"]
    subprocess.run(
        [*pip, ".", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", ".."],
        cwd=folder / "source",
        capture_output=True,
        check=True,
    )
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_a_wheel_puts_only_the_package_into_site_packages(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    (metadata,) = tops - {"mser"}
    assert metadata.startswith("mser-")
    assert metadata.endswith(".dist-info")


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """A new folder of a room must be listed in pyproject.toml, and a new kind of file too."""
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert rooms == {"cache", "heads", "pipeline"}
    expected = {
        f"mser/{name}"
        for name in repository_files()
        if name in AT_THE_ROOT or name.partition("/")[0] in rooms
    }
    assert {name for name in wheel.namelist() if name.startswith("mser/")} == expected


def test_the_wheel_declares_the_command(wheel: zipfile.ZipFile) -> None:
    files = wheel.namelist()
    (name,) = (file for file in files if file.endswith(".dist-info/entry_points.txt"))
    entry_points = configparser.ConfigParser()
    entry_points.read_string(wheel.read(name).decode())
    assert dict(entry_points["console_scripts"]) == {"mser": "mser.cli:main"}


def test_the_wheel_has_its_license_and_metadata(wheel: zipfile.ZipFile) -> None:
    files = wheel.namelist()
    assert any(file.endswith("LICENSE") for file in files)
    (name,) = (file for file in files if file.endswith(".dist-info/METADATA"))
    metadata = wheel.read(name).decode()
    assert "\nName: mser\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata
