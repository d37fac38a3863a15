"""``hbf``: hierarchical bottleneck feature fusion under a modality constraint.

After "modality constraint with hierarchical bottleneck feature fusion" (Speech Communication 173,
2025, 103278). Only the abstract is public. The abstract describes: a *scalable* framework (any
encoders, any modalities), a hierarchy of bottleneck fusion, intra- and inter-modal contrastive
learning that calibrates modality-specific and cross-modal distributions, MRC, which restricts the
learning path of the modality encoders, and MB, which lets the modalities learn in alternation.
Everything else is an INTERPRETATION, explained below. Results of this head do not reproduce results
of the paper.

Notation: modality m, stage k = 1 .. K, utterance i; x_m^k are the hidden states of the frozen
encoder of m at the depth of stage k, and b^k the bottleneck tokens after stage k.

Input projections [interpretation]
    z_m^k = InputProjection_m^k(x_m^k), one for each modality and stage. MRC and MB act on them in
    place of the paper's "modality encoders", because the encoders are frozen here.

Fusion [interpretation, after MBT: Nagrani et al., NeurIPS 2021]
    ({y_m^k}, b^k) = BottleneckBlock^k({MRC(z_m^k)}, b^{k-1}), with b^0 learned. Only the
    bottlenecks go from stage to stage: the tokens of each stage come from its own input
    projections, without a residual from the previous stage. The frozen encoder has already computed
    the deeper tokens from the shallower tokens; a second such path would only bypass the
    bottlenecks.

Hierarchy [interpretation]
    Stage k reads the cached layer at depth d_k, that is position round(d_k · (L_m - 1)). The
    default depths are 1/3, 2/3 and 1. With few cached layers, two stages may read the same layer.
    Without the hierarchy every stage reads the last layer, with the same number of parameters.

Output [interpretation]
    [mean_t y_m^K for each m ; mean of b^1 .. b^K over tokens and stages] → LayerNorm → Linear.

Losses of one modality [interpretation]
    Computed from the outputs of the input projections, not from the fused tokens: with
    s_m = mean_k mean_t z_m^k, uni_modal is the mean over m of the cross-entropy of
    p_m = softmax(Linear(LayerNorm(s_m))), and the contrastive terms compare v_m = MLP_m(s_m).
    intra_modal: v_m and v'_m, from two passes of the input projections with different dropout
    masks, are a positive pair (as in SimCSE: Gao et al., EMNLP 2021), by InfoNCE or, with
    ``supervised``, by SupCon; mean over m. It exists only in training with dropout: without
    dropout the two views are equal.
    inter_modal: InfoNCE between v_m and v_n; mean over the pairs m < n.
    Utterances with identical input are no negatives of each other, see ``FalseNegatives``.
    The three terms do not depend on MRC and MB. Each has a weight, and 0 switches it off.

MRC [interpretation], see :mod:`.mrc`
    The gradient from the fusion to an input projection is multiplied by β (default 0: an input
    projection learns only from the losses of its own modality), or loses the component that
    conflicts with these losses, or is not changed. The second dropout view of intra_modal comes
    from a separate pass that the fusion does not read.

MB [interpretation], see :mod:`.mb`
    In a training step the modalities take turns, the weakest first. In the turn of m, z_n for n ≠ m
    are fixed. The loss is the fused cross-entropy, uni_modal and intra_modal of m only, inter_modal
    of the pairs with m, and agreement, which trains p_m towards each p_n that is more confident in
    the true class (for another target than classes: that has the smaller error). Fusion and
    classifier learn in every turn. Without a ``turn``, the loss has all modalities and no
    agreement.

    With M modalities, MB makes M optimizer steps with a batch, and a head without MB makes one.
    ``joint_steps`` is the number of steps of a head without turns, each with the loss of all
    modalities: with ``joint_steps`` = M, both heads learn from the same batches in the same number
    of steps.

Missing modalities [interpretation]
    If an utterance lacks m (length 0, or hidden by ``masking`` in training), its mean_t y_m^K is
    zero, and the utterance is not in the pairs, the losses or the confidence of m.
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
from ..modules.bottleneck_block import BottleneckBlock
from ..modules.classifier import classifier
from ..modules.false_negatives import FalseNegatives
from ..modules.layer_mix import LayerChoices
from ..modules.modality_masking import ModalityMasking
from ..modules.pooling import masked_mean
from ..modules.projection import StageProjections
from ..objectives import Objective
from .contrastive_losses import inter_modal, intra_modal
from .mb import TurnOrder, agreement
from .mrc import ModalityConstraint
from .unimodal_classifiers import UnimodalClassifiers, uni_modal

Tokens = dict[str, list[Tensor]]
"""z_m^k: modality → one tensor (B, T_m, W) for each stage."""


class HBF(Head):
    """``hbf``; the module docstring has the equations and marks the interpretations.

    loss = cross_entropy + own_weight · uni_modal + agreement · agreement + intra_weight ·
    intra_modal + inter_weight · inter_modal, with the names of the terms. A term with weight 0 is
    not computed and is not in the output.

    Args:
        dims: modality → width D_m; at least one modality (with one, there is no inter_modal).
        n_classes: C.
        n_layers: modality → number of cached layers L_m; 1 each if None.
        layer: must be None: the option ``depths`` selects the layers of this head.
        width: W, the width of tokens and bottlenecks.
        n_attention_heads: must divide W.
        n_bottlenecks: N, the number of bottleneck tokens.
        depths: for each stage, the relative depth of its layer: 0 is the first cached layer, 1 the
            last.
        hierarchical: False to let every stage read the last layer.
        dropout: rate in the input projections and blocks, in [0, 1); 0 also removes intra_modal.
        intra_weight: weight of intra_modal; 0 switches it off.
        inter_weight: weight of inter_modal; 0 switches it off.
        supervised: True to use SupCon in place of InfoNCE in intra_modal; it needs a target with
            one class for each utterance.
        temperature: τ > 0 of both contrastive terms.
        false_negatives: ``"drop"`` or ``"keep"``, see :class:`FalseNegatives`.
        projection: width of the vectors v_m that both contrastive terms compare.
        mrc: ``"scale"``, ``"project"`` or ``"off"``, see :class:`ModalityConstraint`.
        beta: β in [0, 1] of ``"scale"``.
        mb: True to let the modalities take turns.
        agreement: weight of the term ``agreement``, which needs ``mb``; 0 switches it off.
        joint_steps: how many optimizer steps a batch gives if no modality takes turns: without
            ``mb``, or with one modality. At least 1.
        own_weight: weight of uni_modal; 0 switches it off. It must be above 0 with MB, which needs
            a trained classifier for each modality, and if the input projections would receive no
            other gradient.
        masking: probability that a modality of an utterance is hidden in training, see
            :class:`ModalityMasking`.

    Raises:
        HeadError: ``layer`` is given, or an option is out of its range; see also :class:`Head`.
    """

    former_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"false_negatives": "keep"})

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
        false_negatives: str = "drop",
        projection: int = 128,
        mrc: str = "scale",
        beta: float = 0.0,
        mb: bool = True,
        joint_steps: int = 1,
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
        sizes = {"width": width, "n_bottlenecks": n_bottlenecks, "projection": projection}
        require_sizes(**sizes, joint_steps=joint_steps)
        self.weights = {
            "uni_modal": own_weight,
            "agreement": agreement,
            "intra_modal": intra_weight,
            "inter_modal": inter_weight,
        }
        require_weights(self.weights)
        self.constraint = ModalityConstraint(mrc, beta)
        contrasts = bool(intra_weight and dropout) or bool(inter_weight and len(self.dims) > 1)
        self.false_negatives = FalseNegatives(false_negatives, contrasts)
        untrained = mrc == "scale" and beta == 0 and not contrasts
        require(own_weight > 0 or not mb, "own_weight must be above 0 because mb needs it")
        require(
            own_weight > 0 or not untrained,
            "own_weight or beta must be above 0: otherwise the input projections are not trained",
        )
        self.supervised = supervised
        self.temperature = temperature
        self.dropout = dropout
        self.masking = ModalityMasking(masking)

        positions = {
            m: [round((depth if hierarchical else 1) * (n - 1)) for depth in depths]
            for m, n in self.n_layers.items()
        }
        # If two stages read the same layer, the batch holds it once.
        self.layers = {m: tuple(sorted(set(positions[m]))) for m in self.dims}
        reads = {
            m: [self.layers[m].index(position) for position in positions[m]] for m in self.dims
        }
        # The input projections and the projection heads of the contrastive terms. ``stems`` and
        # ``projections`` are part of the names of saved weights.
        self.stems = nn.ModuleDict(
            {m: StageProjections(dim, width, dropout, reads[m]) for m, dim in self.dims.items()}
        )
        self.projections = nn.ModuleDict(
            {m: _projection_head(width, projection) for m in self.dims}
        )
        self.bottlenecks = nn.Parameter(0.02 * torch.randn(n_bottlenecks, width))
        self.stages = nn.ModuleList(
            BottleneckBlock(self.dims, width, n_attention_heads, dropout) for _ in depths
        )
        self.classifier = classifier((len(self.dims) + 1) * width, n_classes)
        names = tuple(self.dims)
        own = UnimodalClassifiers(names, width, n_classes) if own_weight > 0 else None
        self.own_classifiers = own
        self.turn_order = TurnOrder(names, n_classes) if mb else None
        self.joint_steps = joint_steps

    def turns(self) -> tuple[str | None, ...]:
        """Return the modalities, the weakest first; ``joint_steps`` times None if none has a turn.

        In evaluation there are no turns.
        """
        if not self.training:
            return ()
        if self.turn_order is None or len(self.dims) == 1:
            return (None,) * self.joint_steps
        return self.turn_order.order()

    def learn(self, objective: Objective) -> None:
        """See :meth:`Head.learn`; ``supervised`` needs an objective with classes."""
        require(
            objective.has_classes or not self.supervised,
            "supervised compares the classes of utterances, and the target has none: set "
            "supervised=false",
        )
        super().learn(objective)

    def forward(
        self,
        features: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        labels: Tensor | None = None,
        turn: str | None = None,
    ) -> HeadOutput:
        """Classify a batch; see :meth:`Head.forward` for shapes and errors.

        With ``turn`` the loss is that of the turn of one modality: the input projections,
        projection heads and classifiers of the other modalities receive no gradient.
        """
        if turn is not None and turn not in self.dims:
            raise unknown("modality for a turn", turn, self.dims)
        require(turn is None or self.turn_order is not None, "hbf has no turns without mb")
        hidden, masks = self.inputs(features, lengths)
        masks = self.masking(masks)
        tokens = self.tokens(hidden, turn)
        constrained = {m: [self.constraint(z) for z in stages] for m, stages in tokens.items()}
        to_fusion = {m: [fused for fused, _ in stages] for m, stages in constrained.items()}
        logits: Tensor = self.classifier(self.fuse(to_fusion, masks))
        if labels is None:
            return HeadOutput(logits, None, {})
        self.require_labels(labels, len(logits))
        to_own = {m: [own for _, own in stages] for m, stages in constrained.items()}
        pooled = _pool(to_own, masks)
        present = {m: mask.any(dim=1) for m, mask in masks.items()}
        terms = self.target_terms(logits, labels)
        if self.own_classifiers is not None:
            own = self.own_classifiers(pooled)
            terms |= self._own_terms(own, present, labels, turn)
        repeated = self.false_negatives(hidden, lengths)
        views = {m: self.projections[m](x) for m, x in pooled.items()}
        views |= {m: v.detach() for m, v in views.items() if turn not in (None, m)}
        if self.weights["intra_modal"] and self.training and self.dropout:
            learning = {m: x for m, x in hidden.items() if turn in (None, m)}
            again = _pool(self.tokens(learning), masks)
            second = {m: self.projections[m](x) for m, x in again.items()}
            first = {m: views[m] for m in second}
            classes = self.objective.classes(labels) if self.supervised else None
            terms["intra_modal"] = intra_modal(
                first, second, present, self.temperature, classes, repeated
            )
        if self.weights["inter_modal"] and len(views) > 1:
            terms["inter_modal"] = inter_modal(views, present, self.temperature, turn, repeated)
        return self.output(logits, terms, self.weights, self.false_negatives.counts(repeated))

    def tokens(self, hidden: Mapping[str, Tensor], turn: str | None = None) -> Tokens:
        """Return z_m^k from modality → (B, L_m, T_m, D_m).

        In the turn of a modality, the tokens of the others are detached.
        """
        tokens: Tokens = {m: self.stems[m](x) for m, x in hidden.items()}
        fixed = [m for m in tokens if turn not in (None, m)]
        return tokens | {m: [z.detach() for z in tokens[m]] for m in fixed}

    def fuse(self, tokens: Tokens, masks: Mapping[str, Tensor]) -> Tensor:
        """Pass the bottlenecks through the stages; return (B, (M + 1) · W) for M modalities."""
        n_batch = len(next(iter(masks.values())))
        bottlenecks = self.bottlenecks.expand(n_batch, -1, -1)
        passed = []
        for k, stage in enumerate(self.stages):
            z = {m: stages[k] for m, stages in tokens.items()}
            last = k == len(self.stages) - 1  # only the tokens of the last stage are used
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
        """Return ``uni_modal`` and ``agreement`` from the own logits; update the order of turns."""
        learning = {m: x for m, x in own.items() if turn in (None, m)}
        terms = {"uni_modal": uni_modal(learning, present, labels, self.target_loss)}
        if turn is not None and self.weights["agreement"] and len(own) > 1:
            terms["agreement"] = agreement(turn, own, present, labels, self.objective)
        if self.turn_order is not None and self.training:
            for m, x in learning.items():
                self.turn_order.update(m, self.objective.errors(x, labels), present[m])
        return terms


def _pool(tokens: Tokens, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """s_m: modality → (B, W), the mean over positions and stages."""
    pooled = {m: [masked_mean(z, masks[m]) for z in stages] for m, stages in tokens.items()}
    return {m: torch.stack(stages).mean(dim=0) for m, stages in pooled.items()}


def _projection_head(width: int, out: int) -> nn.Module:
    """Linear → GELU → Linear, the projection head of SimCLR (Chen et al., 2020)."""
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, out))
