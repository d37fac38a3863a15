"""A package with entry points, as pip installs it, without pip."""

import shutil
from pathlib import Path

SOURCE = Path(__file__).with_name("own_plugins.py")
ENTRY_POINTS = """
[mser.heads]
late-fusion = {module}:LateFusion
[mser.corpora]
own = {module}:load
[mser.encoders]
bands = {module}:Bands
[mser.formats]
npy = {module}:NpyFormat
[mser.metrics]
lowest_recall = {module}:lowest_recall
"""


def install(folder: Path, module: str, version: str) -> None:
    """Put the plug-ins into a folder that is on ``sys.path``, as the package ``mser-own``."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.dist-info"):
        shutil.rmtree(old)
    info = folder / f"mser_own-{version}.dist-info"
    info.mkdir()
    shutil.copy(SOURCE, folder / f"{module}.py")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mser-own\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS.format(module=module))
