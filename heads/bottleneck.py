"""``bottleneck``: bottleneck fusion without a hierarchy and without losses of single modalities.

After MBT (Nagrani et al., NeurIPS 2021). MBT puts its fusion blocks after the blocks of two trained
encoders; here the encoders are frozen. The layers before and after the blocks are an
INTERPRETATION:

    z_m^0 = dropout(Linear(LayerNorm(mix(x_m)))), see ``Projections``; b^0 learned;
    ({z_m^k}, b^k) = BottleneckBlock^k({z_m^{k-1}}, b^{k-1}), k = 1 .. K;
    logits = Linear(LayerNorm([mean_t z_m^K for each m ; mean of the tokens of b^K])).

Compare it with ``hbf`` to measure the effect of the hierarchy: ``bottleneck`` has the same blocks,
but all blocks process the same sequence of each modality, and the tokens go from block to block.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .errors import require_dropout, require_sizes
from .head import Head, HeadOutput
from .modules.bottleneck_block import BottleneckBlock
from .modules.classifier import classifier
from .modules.layer_mix import LayerChoices
from .modules.pooling import masked_mean
from .modules.projection import Projections


class BottleneckFusion(Head):
    """``bottleneck``; the module docstring has the equations and marks the interpretations.

    The loss is that of the target, for classes the cross-entropy; its only term is
    ``cross_entropy``. If an utterance lacks a modality, the pooled tokens of that modality are
    zeros, and the bottlenecks come from the other modalities.

    Args:
        dims: modality → width D_m; at least one modality.
        n_classes: C.
        n_layers: modality → number of cached layers; 1 each if None.
        layer: see :class:`LayerMixes`; None mixes all layers.
        width: W, the width of tokens and bottlenecks.
        n_attention_heads: must divide W.
        n_bottlenecks: N, the number of bottleneck tokens.
        n_blocks: K, at least 1. With 1, the modalities are combined only in the pooled bottlenecks.
        dropout: rate after the projections and in the blocks, in [0, 1).

    Raises:
        HeadError: the layer does not exist, or an option is out of its range; see also
            :class:`Head`.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        n_classes: int,
        n_layers: Mapping[str, int] | None = None,
        layer: LayerChoices | None = None,
        *,
        width: int = 256,
        n_attention_heads: int = 4,
        n_bottlenecks: int = 4,
        n_blocks: int = 3,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(dims, n_classes, n_layers)
        require_dropout(dropout)
        require_sizes(width=width, n_bottlenecks=n_bottlenecks, n_blocks=n_blocks)
        self.projections = Projections(self.dims, self.n_layers, width, dropout, layer)
        self.layers = self.projections.positions
        self.bottlenecks = nn.Parameter(0.02 * torch.randn(n_bottlenecks, width))
        self.blocks = nn.ModuleList(
            BottleneckBlock(self.dims, width, n_attention_heads, dropout) for _ in range(n_blocks)
        )
        self.classifier = classifier((len(self.dims) + 1) * width, n_classes)

    def forward(
        self,
        features: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        labels: Tensor | None = None,
    ) -> HeadOutput:
        """Classify a batch; see :meth:`Head.forward` for shapes and errors."""
        hidden, masks = self.inputs(features, lengths)
        tokens = self.projections(hidden)
        bottlenecks = self.bottlenecks.expand(len(next(iter(masks.values()))), -1, -1)
        for block in self.blocks:
            tokens, bottlenecks = block(tokens, masks, bottlenecks)
        pooled = [masked_mean(tokens[m], masks[m]) for m in self.dims]
        logits: Tensor = self.classifier(torch.cat([*pooled, bottlenecks.mean(dim=1)], dim=1))
        return self.classified(logits, labels)
