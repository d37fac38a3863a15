"""The heads of plug-ins, and :func:`build_head` with them."""

from collections.abc import Mapping
from typing import Any

from ...heads import HEADS, Head, HeadError
from ...heads import build_head as build_own
from ...heads.modules.layer_mix import LayerChoices
from ..errors import UsageError
from ..plugins import Plugins


def _accepted(value: Any, _: str) -> type[Head] | None:
    return value if isinstance(value, type) and issubclass(value, Head) else None


HEAD_PLUGINS = Plugins("head", "mser.heads", HEADS, _accepted, "a subclass of Head", "--head")


def build_head(
    name: str,
    dims: Mapping[str, int],
    n_classes: int,
    n_layers: Mapping[str, int] | None = None,
    layer: LayerChoices | None = None,
    **options: Any,
) -> Head:
    """Build a head by name, or from ``file.py:Class``; see :func:`mser.heads.build_head`.

    Raises:
        HeadError: there is no such head, its code fails, an option is unknown, or a value is of a
            wrong type or out of its range.
    """
    try:
        admitted = HEAD_PLUGINS.admit(name)
    except UsageError as error:
        raise HeadError(str(error)) from error
    return build_own(admitted, dims, n_classes, n_layers, layer, **options)
