"""The check of names before PyTorch is imported, so that a mistyped name is refused at once."""

from ..errors import unknown
from ..plugins import is_spec
from ..preset_files import preset_file

HEAD_NAMES = (
    *("linear", "distribution", "token", "instance", "bottleneck", "mgcma", "hbf", "hbaf"),
    "query",
)
"""The heads of mser, as the help lists them."""


def check_dataset(name: str) -> None:
    """Check the name of a corpus to extract.

    Raises:
        UsageError: neither mser nor an installed package has it, and it does not name code.
    """
    from ..corpora import CORPUS_PLUGINS  # noqa: PLC0415 -- --help does not need it

    known = {*CORPUS_PLUGINS.names(), "manifest"}
    if name not in known and not _names_code(name):
        raise unknown("dataset", name, known)


def check_cached(name: str | None, cache: str) -> None:
    """Check the name of a dataset to train on; ``None`` if a preset names it.

    Raises:
        UsageError: the cache holds features of other datasets only.
        PipelineError: the cache holds no features.
        CacheError: the cache cannot be read.
    """
    from ..feature_cache import FeatureCache, require_dataset  # noqa: PLC0415 -- as above

    for each in name.split("+") if name is not None else ():
        require_dataset(FeatureCache(cache), each)


def check_head(name: str | None) -> None:
    """Check the name of a head.

    Raises:
        UsageError: neither mser nor an installed package has it, and it does not name code.
    """
    from importlib.metadata import entry_points  # noqa: PLC0415 -- as above

    known = {*HEAD_NAMES, *entry_points(group="mser.heads").names}
    if name is not None and name not in known and not _names_code(name):
        raise unknown("head", name, known)


def check_preset(name: str | None) -> None:
    """Check the name of a preset.

    Raises:
        UsageError: it is not the path of a TOML file, and mser has no preset of that name.
    """
    if name is not None:
        preset_file(name, "presets")


def _names_code(name: str) -> bool:
    return is_spec(name) or name.endswith(".py")
