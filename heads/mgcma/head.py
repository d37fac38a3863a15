"""``mgcma``, multi-granularity cross-modal alignment, and its granularities each alone.

After "Enhancing multimodal emotion recognition through multi-granularity cross-modal alignment"
(arXiv 2412.20821, ICASSP 2025). Its equations 1–11 are the modules of :mod:`.alignment` and
:mod:`.gaussian`, which also say what of them is interpretation; here they become a model.

    z_m = Linear(LN(LayerMix(x_m)))                       [interpretation] see ``Projections``
    z = each alignment module in its order, on the z of the module before
    r_m = mean_t z_mt                                     [interpretation]
    logits = Linear(LN([r_m for each m]))                 [interpretation]
    L = L_DA + L_IA + L_CE                                (eq. 12)

The paper's model is the order distribution, token, instance. A shorter list is a row of its
Table II, the empty one being S4, "none"; another order is a row of its Table III.

The paper does not say whether its encoders are frozen. Here they are, so no number of this head
is a reproduction of the paper's.
"""

from collections.abc import Mapping
from typing import ClassVar

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
from ..modules.layer_mix import LayerChoices
from ..modules.pooling import masked_mean
from ..modules.projection import Projections
from .alignment import Alignment, DistributionAlignment, InstanceAlignment, TokenAlignment

PAPER_WIDTH = 768


class AlignmentHead(Head):
    """Projections, a list of alignment modules, and a classifier on the pooled sequences.

    loss = cross_entropy + distribution_weight · distribution + instance_weight · instance
    (eq. 12; the paper has no weights), the names being those of the terms. A term is there if its
    module is, there are two modalities or more, and its weight is not 0.

    Args:
        dims: modality → width D_m; one modality or more.
        n_classes: C.
        n_layers: modality → number of cached layers; 1 each if None.
        layer: see :class:`LayerMixes`; None mixes all layers.
        modules: names of alignment modules in their order, each once at most: ``distribution``,
            ``token``, ``instance``. If None, the one by which the subclass is called.
        width: W, of the sequences; 768 in the paper.
        n_attention_heads: of the distribution and token modules; must divide W.
        n_blocks: N ≥ 1, of the token module.
        temperature: τ > 0, of both alignment losses.
        dropout: of the projections and the modules, in [0, 1).
        distribution_weight: of L_DA; 0 switches the loss off and leaves the module.
        instance_weight: of L_IA; 0 switches it off.
        distance_scale: p of eq. 5 at the width 768, positive; p = distance_scale · 768 / W.

    Raises:
        HeadError: an unknown or repeated module, or an option out of its range; see also
            :class:`Head` and :class:`LayerMixes`.
    """

    granularity: ClassVar[str]

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
    ) -> None:
        super().__init__(dims, n_classes, n_layers)
        require_sizes(width=width, n_blocks=n_blocks)
        require_positive(temperature=temperature, distance_scale=distance_scale)
        require_dropout(dropout)
        self.weights = {"distribution": distribution_weight, "instance": instance_weight}
        require_weights(self.weights)

        self.projections = Projections(self.dims, self.n_layers, width, dropout, layer)
        self.layers = self.projections.positions

        def build(name: str) -> Alignment:
            if name == "distribution":
                p = distance_scale * PAPER_WIDTH / width
                return DistributionAlignment(
                    self.dims, width, n_attention_heads, dropout, temperature, p
                )
            if name == "token":
                return TokenAlignment(self.dims, width, n_attention_heads, n_blocks, dropout)
            if name == "instance":
                return InstanceAlignment(temperature)
            raise unknown("alignment module", name, ("distribution", "token", "instance"))

        order = (self.granularity,) if modules is None else tuple(modules)
        require(len(set(order)) == len(order), f"modules must be different, not {order}")
        self.alignments = nn.ModuleDict({name: build(name) for name in order})
        self.classifier = classifier(len(self.dims) * width, n_classes)

    def forward(
        self,
        features: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        labels: Tensor | None = None,
    ) -> HeadOutput:
        """Classify a batch; see :meth:`Head.forward` for shapes and errors."""
        hidden, masks = self.inputs(features, lengths)
        pooled, losses = self.represent(hidden, masks)
        logits: Tensor = self.classifier(torch.cat(list(pooled.values()), dim=1))
        if labels is None:
            return HeadOutput(logits, None, {})
        self.require_labels(labels, len(logits))
        terms = losses | {"cross_entropy": self.cross_entropy(logits, labels)}
        return self.output(logits, terms, self.weights)

    def represent(
        self, hidden: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Align the sequences and pool them: what the paper's Figure 3 shows of each modality.

        Args:
            hidden: modality → (B, L_m, T_m, D_m) hidden states, as :meth:`inputs` returns them.
            masks: modality → (B, T_m) bool.

        Returns:
            modality → (B, W) r_m, zeros where an utterance lacks the modality; and the alignment
            losses by name, scalars, those of weight 0 left out.
        """
        tokens, losses = self.projections(hidden), {}
        for name, align in self.alignments.items():
            tokens, loss = align(tokens, masks)
            if loss is not None and self.weights[name]:
                losses[name] = loss
        return {m: masked_mean(x, masks[m]) for m, x in tokens.items()}, losses


class MGCMA(AlignmentHead):
    """``mgcma``: alignment modules in any order; its options are explained at the base.

    Raises:
        HeadError: as the base does.
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
        )


class DistributionHead(AlignmentHead):
    """``distribution``: DAM alone, eqs. 1–8."""

    granularity = "distribution"


class TokenHead(AlignmentHead):
    """``token``: TAM alone."""

    granularity = "token"


class InstanceHead(AlignmentHead):
    """``instance``: IAM alone, eqs. 9–11."""

    granularity = "instance"
