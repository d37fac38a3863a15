"""The TOML files of presets and ablations that come with mser, and those of users.

Nothing slow is imported here: the command line looks for a name before it imports PyTorch.
"""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from .errors import unknown


def preset_names(kind: str) -> list[str]:
    """Return the names of the ``presets`` or ``ablations`` that come with mser."""
    return sorted(file.name.removesuffix(".toml") for file in _included(kind).iterdir())


def preset_file(name: str, kind: str) -> Traversable:
    """Return a file that comes with mser, by name, or the user's own, by path.

    Raises:
        UsageError: the name is not the path of a TOML file, and mser has no file of that name.
    """
    if name.endswith(".toml"):
        return Path(name).expanduser()
    if name not in preset_names(kind):
        raise unknown("preset (a file of your own ends in .toml)", name, preset_names(kind))
    return _included(kind) / f"{name}.toml"


def _included(kind: str) -> Traversable:
    return files(__package__) / kind
