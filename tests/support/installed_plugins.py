"""A package with entry points, as pip installs it, without pip; and the tables of plug-ins."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mser.cache import FORMATS
from mser.heads import HEADS
from mser.pipeline.corpora import CORPORA
from mser.pipeline.encoders import FAMILIES
from mser.pipeline.evaluation.registry import METRIC_PLUGINS, METRICS
from mser.pipeline.store_formats import FORMAT_PLUGINS

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


def tables() -> list[dict[str, Any]]:
    """The tables to which plug-ins are added."""
    return [HEADS, CORPORA, FAMILIES, FORMATS, METRICS]


@contextmanager
def restored_tables() -> Iterator[None]:
    """Make the tables afterwards what they were before."""
    before = [dict(table) for table in tables()]
    try:
        yield
    finally:
        for table, content in zip(tables(), before, strict=True):
            table.clear()
            table.update(content)
        METRIC_PLUGINS._complete = FORMAT_PLUGINS._complete = False
