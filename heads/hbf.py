"""``hbf``: hierarchical bottleneck feature fusion with contrastive calibration.

After "modality constraint with hierarchical bottleneck feature fusion" (Speech Communication 173,
2025, 103278). Only its abstract is public. From it: a *scalable* framework (any encoders, any
modalities), a hierarchy of bottleneck fusion, and intra- and inter-modal contrastive learning that
calibrates modality-specific and cross-modal distributions. Everything beyond is an INTERPRETATION,
part by part below, and no result of this head reproduces the paper's.

Notation: modality m, stage k = 1 .. K, utterance i; x_m^k are the hidden states of the frozen
encoder of m at the depth of stage k, and b^k the bottleneck tokens after stage k.

Stems [interpretation]
    z_m^k = Stem_m^k(x_m^k), see ``Stem``; one for each modality and stage.

Fusion [interpretation, after MBT: Nagrani et al., NeurIPS 2021]
    ({y_m^k}, b^k) = BottleneckBlock^k({z_m^k}, b^{k-1}), with b^0 learned. Only the bottlenecks go
    from stage to stage: the tokens of each stage are those of its own stems, without a residual
    from the stage before. The frozen encoder has already computed the deeper tokens from the
    shallower ones, so a second such path would add nothing but a way round the bottlenecks.

Hierarchy [interpretation]
    Stage k reads the cached layer at depth d_k, position round(d_k · (L_m - 1)); by default the
    depths are 1/3, 2/3 and 1. With few cached layers two stages may read the same one. Without the
    hierarchy every stage reads the last layer, at the same number of parameters.

Output [interpretation]
    [mean_t y_m^K for each m ; mean of b^1 .. b^K over tokens and stages] → LayerNorm → Linear.

Contrastive terms [interpretation]
    On the stems and not on the fused tokens, so that they calibrate each modality by itself:
    p_m = MLP_m(mean_k mean_t z_m^k).
    Intra-modal: p_m and p'_m from two passes of the stem with different dropout masks are a
    positive pair (as in SimCSE: Gao et al., EMNLP 2021), by InfoNCE or, ``supervised``, by SupCon;
    mean over m. Only in training with a dropout, for otherwise the two views are one.
    Inter-modal: InfoNCE between p_m and p_n; mean over the pairs m < n.

The abstract's MRC (restricting the learning path of the modality encoders) and MB (modalities that
learn in alternation) are NOT built. Their place is the one call of ``fuse`` in ``forward``, where
stems meet fusion: MRC would weaken the gradient of its ``tokens`` (with losses of the stems' own to
replace it), and MB would detach those of the modalities whose turn it is not.
"""

from collections.abc import Mapping
from itertools import combinations
from math import inf

import torch
from torch import Tensor, nn

from .bottleneck import BottleneckBlock
from .contrastive import info_nce, supervised_contrastive
from .errors import require
from .head import Head, HeadOutput
from .layer_mix import Layers
from .pooling import masked_mean
from .stem import StageStems

Tokens = dict[str, list[Tensor]]
"""z_m^k: modality → for each stage (B, T_m, W)."""


class HBF(Head):
    """``hbf``; the module's docstring has the equations and says what is interpretation.

    loss = cross_entropy + intra_weight · intra_modal + inter_weight · inter_modal, the names being
    those of the terms. A term of weight 0 is not computed and has no name in the output.

    Args:
        dims: modality → width D_m; one modality or more (one has no inter-modal term).
        n_classes: C.
        n_layers: modality → number of cached layers L_m; 1 each if None.
        layer: must be None: the head chooses its layers by ``depths``.
        width: W, of tokens and bottlenecks.
        n_attention_heads: must divide W.
        n_bottlenecks: N, bottleneck tokens.
        depths: for each stage the relative depth that it reads, 0 for the first cached layer and 1
            for the last.
        hierarchical: False to let every stage read the last layer.
        dropout: in stems and blocks, in [0, 1); 0 also takes the intra-modal term away.
        intra_weight: of the intra-modal term; 0 switches it off.
        inter_weight: of the inter-modal term; 0 switches it off.
        supervised: SupCon in place of InfoNCE in the intra-modal term.
        temperature: τ > 0 of both contrastive terms.
        projection: width of the representations p_m that they compare.

    Raises:
        HeadError: a ``layer``, or an option out of its range; see also :class:`Head`.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        n_classes: int,
        n_layers: Mapping[str, int] | None = None,
        layer: Layers | None = None,
        *,
        width: int = 256,
        n_attention_heads: int = 4,
        n_bottlenecks: int = 4,
        depths: tuple[float, ...] = (1 / 3, 2 / 3, 1.0),
        hierarchical: bool = True,
        dropout: float = 0.1,
        intra_weight: float = 0.1,
        inter_weight: float = 0.1,
        supervised: bool = False,
        temperature: float = 0.07,
        projection: int = 128,
    ) -> None:
        super().__init__(dims, n_classes, n_layers)
        require(layer is None, "hbf reads several layers: use its option depths, not layer")
        in_range = len(depths) > 0 and all(0 <= depth <= 1 for depth in depths)
        require(in_range, f"depths must be one or more numbers in [0, 1], not {depths}")
        require(0 <= dropout < 1, f"dropout must be in [0, 1), not {dropout}")
        require(0 < temperature < inf, f"temperature must be positive, not {temperature}")
        sizes = {"width": width, "n_bottlenecks": n_bottlenecks, "projection": projection}
        for name, size in sizes.items():
            require(size >= 1, f"{name} must be at least 1, not {size}")
        self.weights = {"intra_modal": intra_weight, "inter_modal": inter_weight}
        for name, weight in self.weights.items():
            require(0 <= weight < inf, f"the weight of {name} must not be negative, not {weight}")
        self.supervised = supervised
        self.temperature = temperature
        self.dropout = dropout

        wanted = {
            m: [round((depth if hierarchical else 1) * (n - 1)) for depth in depths]
            for m, n in self.n_layers.items()
        }
        # A layer that two stages read is read from disk once, and found in the batch by its index.
        self.layers = {m: tuple(sorted(set(wanted[m]))) for m in self.dims}
        reads = {m: [self.layers[m].index(position) for position in wanted[m]] for m in self.dims}
        self.stems = nn.ModuleDict(
            {m: StageStems(dim, width, dropout, reads[m]) for m, dim in self.dims.items()}
        )
        self.projections = nn.ModuleDict({m: _projection(width, projection) for m in self.dims})
        self.bottlenecks = nn.Parameter(0.02 * torch.randn(n_bottlenecks, width))
        self.stages = nn.ModuleList(
            BottleneckBlock(self.dims, width, n_attention_heads, dropout) for _ in depths
        )
        fused_width = (len(self.dims) + 1) * width
        self.classifier = nn.Sequential(
            nn.LayerNorm(fused_width), nn.Linear(fused_width, n_classes)
        )

    def forward(
        self,
        features: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        labels: Tensor | None = None,
    ) -> HeadOutput:
        """Classify a batch; see :meth:`Head.forward` for shapes and errors."""
        hidden, masks = self.inputs(features, lengths)
        tokens = self.stem_tokens(hidden)
        logits: Tensor = self.classifier(self.fuse(tokens, masks))
        if labels is None:
            return HeadOutput(logits, None, {})
        self.require_labels(labels, len(logits))
        terms = {"cross_entropy": self.cross_entropy(logits, labels)}
        views = self.represent(tokens, masks)
        if self.weights["intra_modal"] and self.training and self.dropout:
            second = self.represent(self.stem_tokens(hidden), masks)
            terms["intra_modal"] = self._intra_modal(views, second, labels)
        if self.weights["inter_modal"] and len(views) > 1:
            terms["inter_modal"] = self._inter_modal(views)
        return self.output(logits, terms, self.weights)

    def stem_tokens(self, hidden: Mapping[str, Tensor]) -> Tokens:
        """z_m^k from modality → (B, L_m, T_m, D_m)."""
        return {m: self.stems[m](x) for m, x in hidden.items()}

    def fuse(self, tokens: Tokens, masks: Mapping[str, Tensor]) -> Tensor:
        """Pass the bottlenecks through the stages: (B, (M + 1) · W) for M modalities."""
        n_batch = len(next(iter(masks.values())))
        bottlenecks = self.bottlenecks.expand(n_batch, -1, -1)
        passed = []
        for k, stage in enumerate(self.stages):
            z = {m: stages[k] for m, stages in tokens.items()}
            last = k == len(self.stages) - 1  # only the tokens of the last stage are read again
            y, bottlenecks = stage(z, masks, bottlenecks, update_tokens=last)
            passed.append(bottlenecks)
        pooled = [masked_mean(y[m], masks[m]) for m in self.dims]
        return torch.cat([*pooled, torch.stack(passed).mean(dim=(0, 2))], dim=1)

    def represent(self, tokens: Tokens, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """p_m: modality → (B, projection), from the pooled stems alone."""
        pooled = {m: [masked_mean(z, masks[m]) for z in stages] for m, stages in tokens.items()}
        return {m: self.projections[m](torch.stack(p).mean(dim=0)) for m, p in pooled.items()}

    def _intra_modal(
        self, first: Mapping[str, Tensor], second: Mapping[str, Tensor], labels: Tensor
    ) -> Tensor:
        if self.supervised:
            pairs = [
                supervised_contrastive(first[m], second[m], labels, self.temperature) for m in first
            ]
        else:
            pairs = [info_nce(first[m], second[m], self.temperature) for m in first]
        return torch.stack(pairs).mean()

    def _inter_modal(self, views: Mapping[str, Tensor]) -> Tensor:
        pairs = combinations(views.values(), 2)
        return torch.stack([info_nce(a, b, self.temperature) for a, b in pairs]).mean()


def _projection(width: int, out: int) -> nn.Module:
    """Linear → GELU → Linear: contrast in a space of its own (SimCLR: Chen et al., 2020)."""
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, out))
