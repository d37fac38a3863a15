"""``mgcma``, multi-granularity cross-modal alignment, and heads with only one granularity.

After "Enhancing multimodal emotion recognition through multi-granularity cross-modal alignment"
(arXiv 2412.20821, ICASSP 2025). Equations 1–11 are in :mod:`.alignment` and :mod:`.gaussian`, where
interpretations are marked. This module combines them to a model:

    z_m = Linear(LN(LayerMix(x_m)))                       [interpretation] see ``Projections``;
        or z_m = LayerMix(x_m), the encoder's own states
    z = the alignment modules in their order, each on the z of the previous module
    r_m = mean_t z_mt                                     [interpretation]
    logits = Linear(LN([r_m for each m]))                 [interpretation]
    L = L_DA + L_IA + L_CE                                (eq. 12)

The paper's model has the order distribution, token, instance. A shorter list is a row of the
paper's Table II (the empty list is S4, "none"); another order is a row of Table III.

The paper does not state whether its encoders are frozen. Here they are frozen, so results of this
head do not reproduce results of the paper. The page of this head lists all other differences.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import (
    require,
    require_dropout,
    require_positive,
    require_sizes,
    require_weights,
    unknown,
)
from ..head import Head, HeadOutput
from ..modules.classifier import classifier
from ..modules.false_negatives import NO_REPEATS, FalseNegatives, Repeats
from ..modules.layer_mix import LayerChoices, LayerMixes
from ..modules.pooling import masked_mean
from ..modules.projection import Projections
from .alignment import Alignment, DistributionAlignment, InstanceAlignment, TokenAlignment

PAPER_WIDTH = 768


class AlignmentHead(Head):
    """Projections, a list of alignment modules, and a classifier on the pooled sequences.

    loss = cross_entropy + distribution_weight · distribution + instance_weight · instance
    (eq. 12; the paper has no weights), with the names of the terms. The head has a term if it has
    the module, at least two modalities, and a weight other than 0.

    Args:
        dims: modality → width D_m; at least one modality.
        n_classes: C.
        n_layers: modality → number of cached layers; 1 each if None.
        layer: see :class:`LayerMixes`; None mixes all layers.
        modules: names of the alignment modules in their order, each at most once:
            ``distribution``, ``token``, ``instance``. None for the ``granularity`` of the subclass.
        width: W, the width of the sequences; 768 in the paper.
        n_attention_heads: heads of the distribution and token modules; must divide W.
        n_blocks: N ≥ 1, the number of blocks of the token module.
        temperature: τ > 0 of both alignment losses.
        dropout: rate in the projections and the modules, in [0, 1).
        distribution_weight: weight of L_DA; 0 switches the loss off and keeps the module.
        instance_weight: weight of L_IA; 0 switches the loss off.
        distance_scale: p of eq. 5 at the width 768, positive; p = distance_scale · 768 / W.
        input_projection: False to give the encoder's hidden states to the modules without a
            LayerNorm, a linear layer and dropout; W must then be the width of every encoder.
        output_projection: False for a distribution module without Wᵒ, see
            :class:`GaussianConstructor`.
        distribution_returns: ``"mean"`` or ``"input"``, what the next module reads, see
            :class:`DistributionAlignment`.
        token_final_norm: False for a token module without its last LayerNorm, see
            :class:`TokenAlignment`.
        instance_similarity: ``"cosine"`` or ``"dot"``, see :func:`instance_loss`.
        false_negatives: ``"drop"`` or ``"keep"`` in both alignment losses, see
            :class:`FalseNegatives`.

    Raises:
        HeadError: a module is unknown or repeated, or an option is out of its range; see also
            :class:`Head` and :class:`LayerMixes`.
    """

    former_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"output_projection": False, "token_final_norm": False, "false_negatives": "keep"}
    )
    granularity: ClassVar[str]
    """The one module of a subclass that has no option ``modules``."""

    def __init__(
        self,
        dims: Mapping[str, int],
        n_classes: int,
        n_layers: Mapping[str, int] | None = None,
        layer: LayerChoices | None = None,
        modules: tuple[str, ...] | None = None,
        *,
        width: int = PAPER_WIDTH,
        n_attention_heads: int = 12,
        n_blocks: int = 6,
        temperature: float = 0.07,
        dropout: float = 0.1,
        distribution_weight: float = 1.0,
        instance_weight: float = 1.0,
        distance_scale: float = 0.005,
        input_projection: bool = True,
        output_projection: bool = True,
        distribution_returns: str = "mean",
        token_final_norm: bool = True,
        instance_similarity: str = "cosine",
        false_negatives: str = "drop",
    ) -> None:
        super().__init__(dims, n_classes, n_layers)
        require_sizes(width=width, n_blocks=n_blocks)
        require_positive(temperature=temperature, distance_scale=distance_scale)
        require_dropout(dropout)
        self.weights = {"distribution": distribution_weight, "instance": instance_weight}
        require_weights(self.weights)

        self.projections: Projections | LayerMixes
        if input_projection:
            self.projections = Projections(self.dims, self.n_layers, width, dropout, layer)
        else:
            mixes = self.projections = LayerMixes(self.n_layers, layer)
            for m, dim in self.dims.items():
                wide = mixes.n_joined[m] * dim
                of = f"the {wide // dim} joined layers" if wide > dim else "the encoder"
                message = (
                    f"without input_projection, width must be that of {of} of {m}: set "
                    f"width to {wide}, not {width}"
                )
                require(wide == width, message)
        self.layers = self.projections.positions

        def build(name: str) -> Alignment:
            if name == "distribution":
                p = distance_scale * PAPER_WIDTH / width
                return DistributionAlignment(
                    self.dims,
                    width,
                    n_attention_heads,
                    dropout,
                    temperature,
                    p,
                    output_projection=output_projection,
                    returns=distribution_returns,
                )
            if name == "token":
                return TokenAlignment(
                    self.dims,
                    width,
                    n_attention_heads,
                    n_blocks,
                    dropout,
                    final_norm=token_final_norm,
                )
            if name == "instance":
                return InstanceAlignment(temperature, instance_similarity)
            raise unknown("alignment module", name, ("distribution", "token", "instance"))

        order = (self.granularity,) if modules is None else tuple(modules)
        require(
            len(set(order)) == len(order),
            f"modules must name each module at most once, not {order}",
        )
        self.alignments = nn.ModuleDict({name: build(name) for name in order})
        contrasts = len(self.dims) > 1 and any(self.weights.get(name, 0) for name in order)
        self.false_negatives = FalseNegatives(false_negatives, contrasts)
        self.classifier = classifier(len(self.dims) * width, n_classes)

    def forward(
        self,
        features: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        labels: Tensor | None = None,
    ) -> HeadOutput:
        """Classify a batch; see :meth:`Head.forward` for shapes and errors."""
        hidden, masks = self.inputs(features, lengths)
        repeated = NO_REPEATS if labels is None else self.false_negatives(hidden, lengths)
        pooled, losses = self.align(self.projections(hidden), masks, repeated)
        logits: Tensor = self.classifier(torch.cat(list(pooled.values()), dim=1))
        if labels is None:
            return HeadOutput(logits, None, {})
        self.require_labels(labels, len(logits))
        terms = losses | self.target_terms(logits, labels)
        return self.output(logits, terms, self.weights, self.false_negatives.counts(repeated))

    def align(
        self,
        tokens: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        repeated: Repeats = NO_REPEATS,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Pass the sequences z_m through the modules, and pool them.

        Args:
            tokens: modality → (B, T_m, W) z_m.
            masks: modality → (B, T_m) bool.
            repeated: modality → (B, B) bool, see :meth:`Alignment.forward`.

        Returns:
            modality → (B, W) r_m, zeros if the utterance lacks the modality; and the alignment
            losses by name, scalars, without the losses of weight 0.
        """
        passed, losses = dict(tokens), {}
        for name, align in self.alignments.items():
            passed, loss = align(passed, masks, repeated)
            if loss is not None and self.weights[name]:
                losses[name] = loss
        return {m: masked_mean(x, masks[m]) for m, x in passed.items()}, losses

    def representations(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]
    ) -> dict[str, dict[str, Tensor]]:
        """Return the pooled z_m, and r_m after all modules; see :meth:`Head.representations`.

        The paper's Figure 3 shows r_m.
        """
        hidden, masks = self.inputs(features, lengths)
        tokens = self.projections(hidden)
        return {
            "before alignment": {m: masked_mean(x, masks[m]) for m, x in tokens.items()},
            "after alignment": self.align(tokens, masks)[0],
        }


class MGCMA(AlignmentHead):
    """``mgcma``: alignment modules in any order; :class:`AlignmentHead` explains the options.

    Raises:
        HeadError: see :class:`AlignmentHead`.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        n_classes: int,
        n_layers: Mapping[str, int] | None = None,
        layer: LayerChoices | None = None,
        *,
        modules: tuple[str, ...] = ("distribution", "token", "instance"),
        width: int = PAPER_WIDTH,
        n_attention_heads: int = 12,
        n_blocks: int = 6,
        temperature: float = 0.07,
        dropout: float = 0.1,
        distribution_weight: float = 1.0,
        instance_weight: float = 1.0,
        distance_scale: float = 0.005,
        input_projection: bool = True,
        output_projection: bool = True,
        distribution_returns: str = "mean",
        token_final_norm: bool = True,
        instance_similarity: str = "cosine",
        false_negatives: str = "drop",
    ) -> None:
        super().__init__(
            dims,
            n_classes,
            n_layers,
            layer,
            modules,
            width=width,
            n_attention_heads=n_attention_heads,
            n_blocks=n_blocks,
            temperature=temperature,
            dropout=dropout,
            distribution_weight=distribution_weight,
            instance_weight=instance_weight,
            distance_scale=distance_scale,
            input_projection=input_projection,
            output_projection=output_projection,
            distribution_returns=distribution_returns,
            token_final_norm=token_final_norm,
            instance_similarity=instance_similarity,
            false_negatives=false_negatives,
        )


class DistributionHead(AlignmentHead):
    """``distribution``: the distribution alignment (DAM) of ``mgcma`` alone, eqs. 1–8."""

    granularity = "distribution"


class TokenHead(AlignmentHead):
    """``token``: the token alignment (TAM) of ``mgcma`` alone."""

    granularity = "token"


class InstanceHead(AlignmentHead):
    """``instance``: the instance alignment (IAM) of ``mgcma`` alone, eqs. 9–11."""

    granularity = "instance"
