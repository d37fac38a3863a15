"""The frozen-encoder probe: pool every modality, concatenate, one linear layer."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .errors import require_dropout
from .head import Head, HeadOutput
from .modules.layer_mix import LayerChoices, LayerMixes
from .modules.pooling import masked_mean


class LinearProbe(Head):
    """``linear``: layer mix → masked mean over time, per modality → concatenation → Linear.

    The baseline of SUPERB's emotion task (Yang et al., Interspeech 2021), without the projection
    that SUPERB has before the pooling: except for the softmax over the layers, the head is linear.
    The loss is the cross-entropy; its only term is ``cross_entropy``.

    Args:
        dims: modality → width D_m; at least one modality.
        n_classes: C.
        n_layers: modality → number of cached layers; 1 each if None.
        layer: see :class:`LayerMixes`; None mixes all layers.
        dropout: probability of dropping an element of the pooled vector, in [0, 1).

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
        dropout: float = 0.0,
    ) -> None:
        super().__init__(dims, n_classes, n_layers)
        require_dropout(dropout)
        self.mixes = LayerMixes(self.n_layers, layer)
        self.layers = self.mixes.positions
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(sum(self.dims.values()), n_classes)

    def forward(
        self,
        features: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        labels: Tensor | None = None,
    ) -> HeadOutput:
        """Classify a batch; see :meth:`Head.forward` for shapes and errors."""
        hidden, masks = self.inputs(features, lengths)
        pooled = [masked_mean(x, masks[name]) for name, x in self.mixes(hidden).items()]
        logits: Tensor = self.classifier(self.dropout(torch.cat(pooled, dim=1)))
        return self.classified(logits, labels)
