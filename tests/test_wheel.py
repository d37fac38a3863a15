"""The wheel: the package and nothing else, whole."""

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("cache", "heads", "pipeline")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a copy, so that the repository stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
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


def test_the_wheel_holds_every_module_and_preset_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    files = {path for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    files.add(ROOT / "pipeline" / "report.html")
    for kind in ("presets", "ablations"):
        found = set((ROOT / "pipeline" / kind).glob("*.toml"))
        assert found
        files |= found
    wanted = {f"mser/{path.relative_to(ROOT).as_posix()}" for path in files}
    wanted |= {"mser/__init__.py", "mser/cli.py", "mser/py.typed"}
    assert {name for name in wheel.namelist() if name.startswith("mser/")} == wanted


def test_the_wheel_declares_the_command(wheel: zipfile.ZipFile) -> None:
    (name,) = (one for one in wheel.namelist() if one.endswith(".dist-info/entry_points.txt"))
    entry_points = configparser.ConfigParser()
    entry_points.read_string(wheel.read(name).decode())
    assert dict(entry_points["console_scripts"]) == {"mser": "mser.cli:main"}


def test_the_wheel_has_its_license_and_metadata(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert any(name.endswith("LICENSE") for name in names)
    (name,) = (one for one in names if one.endswith(".dist-info/METADATA"))
    metadata = wheel.read(name).decode()
    assert "\nName: mser\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata
