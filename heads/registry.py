"""The table of the heads by name, and :func:`build_head`."""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from .bottleneck import BottleneckFusion
from .errors import HeadError, require, unknown
from .hbaf.head import HBAF
from .hbf.head import HBF
from .head import Head
from .linear import LinearProbe
from .mgcma.head import MGCMA, DistributionHead, InstanceHead, TokenHead
from .modules.layer_mix import LayerChoices
from .objectives import Objective
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
    objective: Objective | None = None,
    **options: Any,
) -> Head:
    """Build a head by its name in :data:`HEADS`.

    A head numbers layers by their *position among the cached layers*, from 0. The command line, the
    settings and the files use the encoder's layer numbers; convert them to positions before you
    call this function. The two are equal if the cache holds all layers.

    Args:
        name: a name in :data:`HEADS`.
        dims: modality → width of its hidden states. Keep the order when you load weights.
        n_classes: C, at least 2; with an ``objective``, its number of outputs.
        n_layers: modality → number of cached layers; 1 each if None.
        layer: ``"mix"``, ``"last"``, a position among the cached layers, a tuple of positions to
            mix, or modality → one of these; None for the default of the head.
        objective: what the head is trained towards, see :mod:`.objectives`; None for one class of
            each utterance.
        options: the options of the head; see its class.

    Returns:
        The head in training mode, with float32 parameters (torch's default dtype) on the CPU.

    Raises:
        HeadError: the head or an option is unknown, or a value has the wrong type or is out of its
            range.
    """
    if name not in HEADS:
        raise unknown("head", name, HEADS)
    constructor: Callable[..., Head] = HEADS[name]
    check_options(name, HEADS[name], options)
    fits = n_classes >= 2 or objective is not None
    require(fits, f"n_classes must be at least 2, not {n_classes}")
    try:  # a head of a plug-in may have another signature
        signature(constructor).bind(dims, n_classes, n_layers, layer, **options)
    except TypeError as error:
        raise HeadError(
            f"the head {name} cannot be built ({error}): its constructor takes dims, n_classes, "
            "n_layers and layer, then its options by keyword"
        ) from error
    head = constructor(dims, n_classes, n_layers, layer, **options)
    if objective is not None:
        head.learn(objective)
    return head
