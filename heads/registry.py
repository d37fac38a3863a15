"""Heads by name."""

from collections.abc import Callable, Mapping
from typing import Any

from .bottleneck import BottleneckFusion
from .errors import unknown
from .hbaf.head import HBAF
from .hbf.head import HBF
from .head import Head
from .linear import LinearProbe
from .mgcma.head import MGCMA, DistributionHead, InstanceHead, TokenHead
from .modules.layer_mix import LayerChoices
from .options import check_options
from .query.head import QueryHead

HEADS: dict[str, type[Head]] = {
    "bottleneck": BottleneckFusion,
    "distribution": DistributionHead,
    "hbaf": HBAF,
    "hbf": HBF,
    "instance": InstanceHead,
    "linear": LinearProbe,
    "mgcma": MGCMA,
    "query": QueryHead,
    "token": TokenHead,
}
"""Name → class. A head's options are the keyword-only parameters of its constructor."""


def build_head(
    name: str,
    dims: Mapping[str, int],
    n_classes: int,
    n_layers: Mapping[str, int] | None = None,
    layer: LayerChoices | None = None,
    **options: Any,
) -> Head:
    """Build a head by its name in :data:`HEADS`.

    Args:
        name: one of those in :data:`HEADS`.
        dims: modality → width of its hidden states, in the order to be kept when loading weights.
        n_classes: C, at least 2.
        n_layers: modality → number of cached layers; 1 each if None.
        layer: ``"mix"``, ``"last"``, a position among the cached layers, several positions to be
            mixed, or one of these for each modality by name; None for the head's own default.
        options: the head's own options; see its class.

    Returns:
        The head in training mode, its parameters float32 (torch's default dtype) on the CPU.

    Raises:
        HeadError: an unknown head or option, a value of the wrong type or out of its range.
    """
    if name not in HEADS:
        raise unknown("head", name, HEADS)
    constructor: Callable[..., Head] = HEADS[name]
    check_options(name, HEADS[name], options)
    return constructor(dims, n_classes, n_layers, layer, **options)
