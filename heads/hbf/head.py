"""``hbf``: hierarchical bottleneck feature fusion under a modality constraint.

After "modality constraint with hierarchical bottleneck feature fusion" (Speech Communication 173,
2025, 103278). Only its abstract is public. From it: a *scalable* framework (any encoders, any
modalities), a hierarchy of bottleneck fusion, intra- and inter-modal contrastive learning that
calibrates modality-specific and cross-modal distributions, MRC that restricts the learning path of
the modality encoders, and MB that lets modalities learn in alternation. Everything beyond is an
INTERPRETATION, part by part below, and no result of this head reproduces the paper's.

Notation: modality m, stage k = 1 .. K, utterance i; x_m^k are the hidden states of the frozen
encoder of m at the depth of stage k, and b^k the bottleneck tokens after stage k.

Stems [interpretation]
    z_m^k = Stem_m^k(x_m^k), see ``Stem``; one for each modality and stage. They are what MRC and MB
    take for the "modality encoders", since those before the cache are frozen.

Fusion [interpretation, after MBT: Nagrani et al., NeurIPS 2021]
    ({y_m^k}, b^k) = BottleneckBlock^k({MRC(z_m^k)}, b^{k-1}), with b^0 learned. Only the
    bottlenecks go from stage to stage: the tokens of each stage are those of its own stems, without
    a residual from the stage before. The frozen encoder has already computed the deeper tokens from
    the shallower ones, so a second such path would add nothing but a way round the bottlenecks.

Hierarchy [interpretation]
    Stage k reads the cached layer at depth d_k, position round(d_k · (L_m - 1)); by default the
    depths are 1/3, 2/3 and 1. With few cached layers two stages may read the same one. Without the
    hierarchy every stage reads the last layer, at the same number of parameters.

Output [interpretation]
    [mean_t y_m^K for each m ; mean of b^1 .. b^K over tokens and stages] → LayerNorm → Linear.

A modality's own losses [interpretation]
    On the stems and not on the fused tokens: with s_m = mean_k mean_t z_m^k,
    uni_modal = mean over m of the cross-entropy of p_m = softmax(Linear(LayerNorm(s_m))), and the
    contrastive terms compare v_m = MLP_m(s_m).
    intra_modal: v_m and v'_m from two passes of the stem with different dropout masks are a
    positive pair (as in SimCSE: Gao et al., EMNLP 2021), by InfoNCE or, ``supervised``, by SupCon;
    mean over m. Only in training with a dropout, for otherwise the two views are one.
    inter_modal: InfoNCE between v_m and v_n; mean over the pairs m < n.

MRC [interpretation], see :mod:`.constraint`
    What the fusion sends back to a stem is scaled by β (0 by default, so that a stem learns from
    its modality's own losses alone), or freed of what conflicts with those; or it is let through.
    The second dropout view of intra_modal is another pass, of which the fusion sees nothing.

MB [interpretation], see :mod:`.alternation`
    In a training step the modalities take turns, the weak one first. In the turn of m, z_n for
    n ≠ m are fixed, and the loss is the fused cross-entropy, uni_modal and intra_modal of m alone,
    inter_modal of the pairs with m, and agreement: p_m is drawn towards those p_n that are surer of
    the true class. Fusion and classifier learn in every turn. Without a ``turn`` the loss has all
    modalities and no agreement.

Missing modalities [interpretation]
    An utterance that lacks m (length 0, or masked by ``masking`` in training) has a zero vector for
    mean_t y_m^K, and is not in the pairs, in the own losses or in the confidence of m.
"""

from collections.abc import Mapping

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
from ..modules.bottleneck_block import BottleneckBlock
from ..modules.classifier import classifier
from ..modules.layer_mix import LayerChoices
from ..modules.modality_masking import ModalityMasking
from ..modules.pooling import masked_mean
from ..modules.projection import StageStems
from .contrastive_losses import inter_modal, intra_modal
from .mb import TurnOrder, agreement
from .mrc import ModalityConstraint
from .unimodal_classifiers import UnimodalClassifiers, uni_modal

Tokens = dict[str, list[Tensor]]
"""z_m^k: modality → for each stage (B, T_m, W)."""


class HBF(Head):
    """``hbf``; the module's docstring has the equations and says what is interpretation.

    loss = cross_entropy + own_weight · uni_modal + agreement · agreement + intra_weight ·
    intra_modal + inter_weight · inter_modal, the names being those of the terms. A term of weight 0
    is not computed and has no name in the output.

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
        projection: width of the representations v_m that they compare.
        mrc: ``"scale"``, ``"project"`` or ``"off"``, see :class:`ModalityConstraint`.
        beta: β in [0, 1] of ``"scale"``.
        mb: whether modalities take turns.
        agreement: μ, the weight of the agreement term, which only ``mb`` has; 0 switches it off.
        own_weight: of the term ``uni_modal``, which there is with MRC or MB. It may be 0 without
            MB, which needs each modality's own classifier to have learnt, and where MRC leaves the
            stems something else to learn from.
        masking: probability that an utterance loses a modality in training, see
            :class:`ModalityMasking`.

    Raises:
        HeadError: a ``layer``, or an option out of its range; see also :class:`Head`.
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
        depths: tuple[float, ...] = (1 / 3, 2 / 3, 1.0),
        hierarchical: bool = True,
        dropout: float = 0.1,
        intra_weight: float = 0.1,
        inter_weight: float = 0.1,
        supervised: bool = False,
        temperature: float = 0.07,
        projection: int = 128,
        mrc: str = "scale",
        beta: float = 0.0,
        mb: bool = True,
        agreement: float = 0.1,
        own_weight: float = 1.0,
        masking: float = 0.0,
    ) -> None:
        super().__init__(dims, n_classes, n_layers)
        require(layer is None, "hbf reads several layers: use its option depths, not layer")
        in_range = len(depths) > 0 and all(0 <= depth <= 1 for depth in depths)
        require(in_range, f"depths must be one or more numbers in [0, 1], not {depths}")
        require_dropout(dropout)
        require_positive(temperature=temperature)
        require_sizes(width=width, n_bottlenecks=n_bottlenecks, projection=projection)
        self.weights = {
            "uni_modal": own_weight,
            "agreement": agreement,
            "intra_modal": intra_weight,
            "inter_modal": inter_weight,
        }
        require_weights(self.weights)
        self.constraint = ModalityConstraint(mrc, beta)
        contrasts = (intra_weight and dropout) or (inter_weight and len(self.dims) > 1)
        unfed = mrc == "scale" and beta == 0 and not contrasts
        needed = "is needed by mb" if mb else "or beta is needed for the stems to learn anything"
        require(own_weight > 0 or not (mb or unfed), f"an own_weight above 0 {needed}")
        self.supervised = supervised
        self.temperature = temperature
        self.dropout = dropout
        self.masking = ModalityMasking(masking)

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
        self.classifier = classifier((len(self.dims) + 1) * width, n_classes)
        names, own = tuple(self.dims), own_weight > 0 and (mb or mrc != "off")
        self.own_classifiers = UnimodalClassifiers(names, width, n_classes) if own else None
        self.turn_order = TurnOrder(names, n_classes) if mb else None

    def turns(self) -> tuple[str, ...]:
        """See :meth:`Head.turns`; the weak modality first, none in evaluation or without MB."""
        if self.turn_order is None or not self.training or len(self.dims) == 1:
            return ()
        return self.turn_order.order()

    def forward(
        self,
        features: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        labels: Tensor | None = None,
        turn: str | None = None,
    ) -> HeadOutput:
        """Classify a batch; see :meth:`Head.forward` for shapes and errors.

        With ``turn`` the loss is that of a modality's turn: no gradient reaches the stems,
        projections and own classifiers of the others.
        """
        if turn is not None and turn not in self.dims:
            raise unknown("modality for a turn", turn, self.dims)
        require(turn is None or self.turn_order is not None, "hbf has no turns without mb")
        hidden, masks = self.inputs(features, lengths)
        masks = self.masking(masks)
        tokens = self.stem_tokens(hidden, turn)
        ways = {m: [self.constraint(z) for z in stages] for m, stages in tokens.items()}
        to_fusion = {m: [way[0] for way in stages] for m, stages in ways.items()}
        logits: Tensor = self.classifier(self.fuse(to_fusion, masks))
        if labels is None:
            return HeadOutput(logits, None, {})
        self.require_labels(labels, len(logits))
        pooled = _pool({m: [way[1] for way in stages] for m, stages in ways.items()}, masks)
        present = {m: mask.any(dim=1) for m, mask in masks.items()}
        terms = {"cross_entropy": self.cross_entropy(logits, labels)}
        if self.own_classifiers is not None:
            own = self.own_classifiers(pooled)
            terms |= self._own_terms(own, present, labels, turn)
        views = {m: self.projections[m](x) for m, x in pooled.items()}
        views |= {m: v.detach() for m, v in views.items() if turn not in (None, m)}
        if self.weights["intra_modal"] and self.training and self.dropout:
            learning = {m: x for m, x in hidden.items() if turn in (None, m)}
            again = _pool(self.stem_tokens(learning), masks)
            second = {m: self.projections[m](x) for m, x in again.items()}
            first = {m: views[m] for m in second}
            classes = labels if self.supervised else None
            terms["intra_modal"] = intra_modal(first, second, present, self.temperature, classes)
        if self.weights["inter_modal"] and len(views) > 1:
            terms["inter_modal"] = inter_modal(views, present, self.temperature, turn)
        return self.output(logits, terms, self.weights)

    def stem_tokens(self, hidden: Mapping[str, Tensor], turn: str | None = None) -> Tokens:
        """z_m^k from modality → (B, L_m, T_m, D_m); in a turn, those of the others are fixed."""
        tokens: Tokens = {m: self.stems[m](x) for m, x in hidden.items()}
        fixed = [m for m in tokens if turn not in (None, m)]
        return tokens | {m: [z.detach() for z in tokens[m]] for m in fixed}

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

    def _own_terms(
        self,
        own: Mapping[str, Tensor],
        present: dict[str, Tensor],
        labels: Tensor,
        turn: str | None,
    ) -> dict[str, Tensor]:
        """``uni_modal`` and ``agreement`` from the own logits, followed by the order of turns."""
        learning = {m: x for m, x in own.items() if turn in (None, m)}
        terms = {"uni_modal": uni_modal(learning, present, labels, self.cross_entropy)}
        if turn is not None and self.weights["agreement"] and len(own) > 1:
            terms["agreement"] = agreement(turn, own, present, labels)
        if self.turn_order is not None and self.training:
            for m, x in learning.items():
                self.turn_order.update(m, x, present[m], labels)
        return terms


def _pool(tokens: Tokens, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """s_m: modality → (B, W), the mean over positions and stages."""
    pooled = {m: [masked_mean(z, masks[m]) for z in stages] for m, stages in tokens.items()}
    return {m: torch.stack(stages).mean(dim=0) for m, stages in pooled.items()}


def _projection(width: int, out: int) -> nn.Module:
    """Linear → GELU → Linear: contrast in a space of its own (SimCLR: Chen et al., 2020)."""
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, out))
