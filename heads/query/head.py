"""``query``: emotion queries over uni-modal encoders, trained with random modality masking.

After "Exploring complementary features in multi-modal speech emotion recognition" (Wang, Ma, Ding,
ICASSP 2023). From the paper: parallel uni-modal encoders refine pre-trained features; a group of
learnable emotion query tokens collects emotion information from the refined features by
cross-attention in a transformer decoder; random modality masking in training reduces modality bias.
Sizes and details are an INTERPRETATION, explained below. Results of this head do not reproduce
results of the paper.

Notation: x_m are the hidden states of modality m, e_m its learned embedding.

Encoders [interpretation of the sizes]
    z_m = PreNormBlock²(Projection_m(x_m) + e_m), 4 attention heads, feed-forward ratio 4. No
    positional encoding: the hidden states of an encoder already contain their positions.

Queries [interpretation of the sizes]
    q = EmotionQueries([z_1 ; z_2 ; …]), with 4 queries and 2 layers.

Output [interpretation]
    mean of the queries → LayerNorm → Linear.

Random modality masking [rates: interpretation]
    In training a modality of an utterance is hidden with probability ``masking``, but never its
    only modality; see ``ModalityMasking``. A hidden modality is removed from the key-padding masks,
    exactly as if the utterance lacked it.

The loss is that of the target, for classes the cross-entropy; its only term is ``cross_entropy``.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import require, require_dropout, require_sizes
from ..head import Head, HeadOutput
from ..modules.attention import PreNormBlock
from ..modules.classifier import classifier
from ..modules.layer_mix import LayerChoices
from ..modules.modality_masking import ModalityMasking
from ..modules.projection import Projections
from .decoder import EmotionQueries


class UniModalEncoder(nn.Module):
    """The encoder of one modality: adds the embedding of the modality, then transformer blocks.

    Args:
        width: W, the width of the tokens.
        n_heads: number of attention heads; must divide W.
        n_layers: number of blocks; 0 for none.
        dropout: see :class:`PreNormBlock`.

    Raises:
        HeadError: ``n_heads`` does not divide the width.
    """

    def __init__(self, width: int, n_heads: int, n_layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = nn.ModuleList(PreNormBlock(width, n_heads, dropout) for _ in range(n_layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, W) → (B, T, W), not normalised; the (B, T) bool mask marks the valid positions."""
        z = x + self.embedding
        for block in self.blocks:
            z = block(z, mask)
        return z


class QueryHead(Head):
    """``query``; the module docstring has the parts and marks the interpretations.

    Args:
        dims: modality → width D_m; at least one modality (with one, no modality is masked).
        n_classes: C.
        n_layers: modality → number of cached layers; 1 each if None.
        layer: see :class:`LayerMixes`; None mixes all layers.
        width: W, the width of tokens and queries.
        n_attention_heads: must divide W.
        n_encoder_layers: number of blocks of each uni-modal encoder; 0 for none.
        n_queries: number of query tokens.
        n_decoder_layers: number of layers of the decoder.
        dropout: rate in projections, encoders and decoder, in [0, 1).
        masking: probability that a modality of an utterance is hidden in training, in [0, 1].

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
        n_encoder_layers: int = 2,
        n_queries: int = 4,
        n_decoder_layers: int = 2,
        dropout: float = 0.1,
        masking: float = 0.4,
    ) -> None:
        super().__init__(dims, n_classes, n_layers)
        require_dropout(dropout)
        require_sizes(width=width, n_queries=n_queries, n_decoder_layers=n_decoder_layers)
        message = f"n_encoder_layers must be at least 0, not {n_encoder_layers}"
        require(n_encoder_layers >= 0, message)
        self.projections = Projections(self.dims, self.n_layers, width, dropout, layer)
        self.layers = self.projections.positions
        self.masking = ModalityMasking(masking)
        self.encoders = nn.ModuleDict(
            {
                m: UniModalEncoder(width, n_attention_heads, n_encoder_layers, dropout)
                for m in self.dims
            }
        )
        self.queries = EmotionQueries(
            n_queries, width, n_attention_heads, n_decoder_layers, dropout
        )
        self.classifier = classifier(width, n_classes)

    def forward(
        self,
        features: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        labels: Tensor | None = None,
    ) -> HeadOutput:
        """Classify a batch; see :meth:`Head.forward` for shapes and errors."""
        hidden, masks = self.inputs(features, lengths)
        masks = self.masking(masks)
        memory = self.encode(hidden, masks)
        queries = self.queries(memory, torch.cat([masks[m] for m in self.dims], dim=1))
        logits: Tensor = self.classifier(queries.mean(dim=1))
        return self.classified(logits, labels)

    def encode(self, hidden: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
        """Return [z_1 ; z_2 ; …], (B, Σ T_m, W), not normalised; see :meth:`inputs`."""
        tokens = self.projections(hidden)
        return torch.cat([self.encoders[m](tokens[m], masks[m]) for m in self.dims], dim=1)
