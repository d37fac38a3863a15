"""The frozen-encoder probe: pool every modality, concatenate, one linear layer."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .errors import require_dropout, unknown
from .head import Head, HeadOutput
from .modules.layer_mix import LayerChoices, LayerMixes
from .modules.pooling import AttentionPooling, masked_mean_std

POOLINGS = ("mean", "mean_std", "attention")
_EPS = 1e-12  # so small that the deviation equals that of the pooled features in the cache


class LinearProbe(Head):
    """``linear``: pooling over time → layers → concatenation of the modalities → Linear.

    The baseline that every other head has to beat. With the layers concatenated (the default) or
    one layer, and no dropout, the head is multinomial logistic regression on the standardised means
    (and deviations) of the hidden states, and the trainer solves it as such. With a mix of layers
    it is the baseline of SUPERB's emotion task (Yang et al., Interspeech 2021), without the
    projection that SUPERB has before the pooling. The loss is that of the target, for classes the
    cross-entropy; its only term is ``cross_entropy``.

    Means commute with a mix of layers; standard deviations do not, so ``mean_std`` mixes the
    deviations of the layers, not the frames [interpretation].

    Args:
        dims: modality → width D_m; at least one modality.
        n_classes: C.
        n_layers: modality → number of cached layers; 1 each if None.
        layer: see :class:`LayerMixes`; None concatenates all layers.
        pooling: ``mean``, ``mean_std`` or ``attention`` (see :mod:`.modules.pooling`).
        dropout: probability of dropping an element of the pooled vector, in [0, 1).

    Raises:
        HeadError: the layer or the pooling does not exist, or an option is out of its range; see
            also :class:`Head`.

    Attributes:
        joined: modality → width of its part of the classifier's inputs.
    """

    former_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"pooling": "mean"})

    def __init__(
        self,
        dims: Mapping[str, int],
        n_classes: int,
        n_layers: Mapping[str, int] | None = None,
        layer: LayerChoices | None = None,
        *,
        pooling: str = "mean_std",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(dims, n_classes, n_layers)
        require_dropout(dropout)
        if pooling not in POOLINGS:
            raise unknown("pooling", pooling, POOLINGS)
        self.mixes = LayerMixes(self.n_layers, layer, dict.fromkeys(self.dims, "concat"))
        self.layers = self.mixes.positions
        self.pooling, self.reads_pooled = pooling, pooling != "attention"
        self.widths = {m: dim * (1 + (pooling == "mean_std")) for m, dim in self.dims.items()}
        self.joined = {m: self.mixes.n_joined[m] * width for m, width in self.widths.items()}
        self.attention = nn.ModuleDict(
            {}
            if self.reads_pooled
            else {m: AttentionPooling(width) for m, width in self.joined.items()}
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(sum(self.joined.values()), n_classes)

    @property
    def is_linear(self) -> bool:
        """Whether the logits are linear in the pooled features: then the loss is convex."""
        return self.reads_pooled and not self.mixes.weights() and self.dropout.p == 0

    def forward(
        self,
        features: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        labels: Tensor | None = None,
    ) -> HeadOutput:
        """Classify a batch; see :meth:`Head.forward` for shapes and errors."""
        hidden, masks = self.inputs(features, lengths)
        if self.reads_pooled:
            pooled = {m: _mean_and_std(x, masks[m]) for m, x in hidden.items()}
            return self.classify(pooled, lengths, labels)
        frames = self.mixes(hidden)
        return self._output([self.attention[m](x, masks[m]) for m, x in frames.items()], labels)

    def classify(
        self,
        pooled: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        labels: Tensor | None = None,
    ) -> HeadOutput:
        """Classify a batch of pooled features; see :meth:`Head.classify`."""
        vectors = self.vectors(pooled, lengths)
        return self._output([vectors[m] for m in self.dims], labels)

    def vectors(
        self, pooled: Mapping[str, Tensor], lengths: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the standardised input of the classifier: modality → (B, ``n_joined`` · width).

        The arguments are those of :meth:`classify`. A modality that is missing gives zeros, which
        is the mean of the training part.
        """
        standardised = {}
        for m, width in self.widths.items():
            x = self.standardised(m, pooled[m][:, :, :width].to(self.classifier.weight.dtype))
            present = (lengths[m] > 0).to(x.device)
            standardised[m] = torch.where(present[:, None, None], x, 0.0).unsqueeze(2)
        return {m: x[:, 0] for m, x in self.mixes(standardised).items()}

    def _output(self, vectors: list[Tensor], labels: Tensor | None) -> HeadOutput:
        logits: Tensor = self.classifier(self.dropout(torch.cat(vectors, dim=1)))
        return self.classified(logits, labels)


def _mean_and_std(x: Tensor, mask: Tensor) -> Tensor:
    """(B, L, T, D) to (B, L, 2 · D)."""
    return torch.stack([masked_mean_std(layer, mask, _EPS) for layer in x.unbind(dim=1)], dim=1)
