"""``hbaf``: heterogeneous bimodal attention fusion of the utterances of a dialogue.

After arXiv 2503.06405 (Speech Communication, 2025); only the abstract was available to us. The
abstract describes: emotion recognition in conversations from audio and text; contextual content
that is added to the low-level audio representation, to reduce its gap to high-level text; dynamic
bimodal attention and a dynamic gate that filter wrong cross-modal relations and use intra- and
inter-modal interactions with residuals; inter-modal contrastive learning of absolute and relative
interactions. Every equation and every number is an INTERPRETATION, explained below. Results of this
head do not reproduce results of the paper.

Notation: utterance i of a dialogue, modality m, x_m,i (width W) its uni-modal representation.

Granularity [interpretation]
    The fusion works on the sequence of the utterances of a dialogue: the audio context network
    returns one vector per utterance, and the paper compares and classifies utterances. An utterance
    attends to the turns before and after it, in its own and in the other modality. A dialogue of
    one utterance attends only to itself; without dialogues every utterance is such a dialogue. λ
    and the gate still weight the modalities against each other.

Uni-modal representation [interpretation]
    speech: x_i = AudioContextNetwork(Projection(frames)), a recurrent network over the frames, then
    recurrent networks over the utterances of the dialogue. Any other modality: x_m,i =
    TurnContext_m(AttentionPooling(Projection_m(tokens))), the same networks over the utterances:
    turns of text have an order and a speaker too. The modality with the name ``speech`` has the
    audio context network; without ``speech``, no modality has it. By default speech reads a mix of
    the encoder's layers 0 to 3, low-level audio, and every other modality a mix of all layers.

Context [interpretation]
    A turn that is only context (``context`` of :class:`Dialogues`) is read as every other turn, by
    the networks over the turns and by the attention. It is in no term of the loss.

Fusion [interpretation]
    h = BimodalAttention(x), o_m = DynamicGate(x_m, h_m); see these classes.

Output [interpretation]
    [o_m for each m] → dropout → Linear; o_m = 0 if the utterance lacks m.

Loss [interpretation]
    cross_entropy + β · uni_modal + λ_abs · absolute + λ_rel · relative. ``uni_modal`` is the sum
    over m (L_a + L_t) of the cross-entropy of Linear_m(x_m), over the utterances that have m.
    ``absolute`` is symmetric InfoNCE on (x_m, x_n): which text belongs to which audio; utterances
    with identical input are no negatives of each other, see ``FalseNegatives``. ``relative`` is
    ``relation_distance``. Both are means over the pairs m < n and use the labelled utterances of
    the batch that have both modalities. They are computed on x, the input of the fusion, not on o.
"""

from collections.abc import Mapping
from itertools import combinations
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..dialogues import Dialogues
from ..errors import require, require_dropout, require_positive, require_weights
from ..head import Head, HeadOutput
from ..modules.contrastive import info_nce, relation_distance
from ..modules.false_negatives import FalseNegatives, Repeats, in_either
from ..modules.layer_mix import LayerChoice, LayerChoices
from ..modules.pooling import AttentionPooling
from ..modules.projection import Projections
from .audio_context import AudioContextNetwork
from .bimodal_attention import BimodalAttention, DynamicGate
from .turn_context import TurnContext, by_dialogue, by_utterance

# Speech has a network over its frames, so this head needs the name of one modality. For the other
# heads, a modality is only a key.
SPEECH = "speech"
"""The modality with the audio context network."""

LOW_LAYERS = (0, 1, 2, 3)
"""The encoder's layers that speech reads by default."""


class HBAF(Head):
    """``hbaf``; the module docstring has the equations and marks the interpretations.

    The terms are ``cross_entropy``, ``uni_modal``, ``absolute`` and ``relative``. A term with
    weight 0 is not computed and is not in the output. With one modality, ``absolute`` and
    ``relative`` are not in the output.

    Args:
        dims: modality → width D_m; at least one modality.
        n_classes: C.
        n_layers: modality → number of cached layers; 1 each if None.
        layer: see :class:`LayerMixes`; None mixes the first four cached layers of ``speech`` and
            reads the last layer of every other modality.
        width: W, the width of the representations; even.
        dropout: rate in the projections and before the classifiers, in [0, 1).
        context: False to leave out the audio context network: speech is pooled like the others,
            and no network reads its turns.
        text_context: False to leave out the network over the turns of every modality other than
            ``speech``.
        speakers: False to leave out the networks over the turns of each speaker.
        unlabelled_turns: whether the dialogues hold turns without a label, as context. Only the
            training reads this option: the head takes the dialogues as they are.
        fusion: False to leave out bimodal attention and gate: the classifier reads the x_m.
        uni_modal_weight: β; 0 switches the uni-modal classifiers off.
        absolute_weight: λ_abs; 0 switches the term off.
        relative_weight: λ_rel; 0 switches the term off.
        temperature: τ > 0 of the term ``absolute``.
        false_negatives: ``"drop"`` or ``"keep"`` in the term ``absolute``, see
            :class:`FalseNegatives`.

    Raises:
        HeadError: the layer does not exist, or an option is out of its range; see also
            :class:`Head`.
    """

    reads_dialogues = True
    default_layers = MappingProxyType({SPEECH: LOW_LAYERS})
    former_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "false_negatives": "keep",
            "text_context": False,
            "speakers": False,
            "unlabelled_turns": False,
        }
    )

    def __init__(
        self,
        dims: Mapping[str, int],
        n_classes: int,
        n_layers: Mapping[str, int] | None = None,
        layer: LayerChoices | None = None,
        *,
        width: int = 256,
        dropout: float = 0.3,
        context: bool = True,
        text_context: bool = True,
        speakers: bool = True,
        unlabelled_turns: bool = True,
        fusion: bool = True,
        uni_modal_weight: float = 0.5,
        absolute_weight: float = 0.1,
        relative_weight: float = 0.1,
        temperature: float = 0.07,
        false_negatives: str = "drop",
    ) -> None:
        super().__init__(dims, n_classes, n_layers)
        even = width >= 2 and width % 2 == 0
        require(even, f"width must be even and at least 2, not {width}")
        require_dropout(dropout)
        require_positive(temperature=temperature)
        self.weights = {
            "uni_modal": uni_modal_weight,
            "absolute": absolute_weight,
            "relative": relative_weight,
        }
        require_weights(self.weights)
        self.temperature = temperature
        self.unlabelled_turns = unlabelled_turns
        contrasts = absolute_weight > 0 and len(self.dims) > 1
        self.false_negatives = FalseNegatives(false_negatives, contrasts)
        default: dict[str, LayerChoice] = {}
        if SPEECH in self.dims:
            default[SPEECH] = tuple(range(min(len(LOW_LAYERS), self.n_layers[SPEECH])))
        self.projections = Projections(self.dims, self.n_layers, width, dropout, layer, default)
        self.layers = self.projections.positions

        in_context = context and SPEECH in self.dims
        self.context = AudioContextNetwork(width, speakers) if in_context else None
        pooled = [m for m in self.dims if not (in_context and m == SPEECH)]
        self.poolings = nn.ModuleDict({m: AttentionPooling(width) for m in pooled})
        self.attention = BimodalAttention(self.dims, width) if fusion else None
        gated = self.dims if fusion else ()
        self.gates = nn.ModuleDict({m: DynamicGate(width) for m in gated})
        self.dropout = nn.Dropout(dropout)
        classified = self.dims if uni_modal_weight else ()
        # The uni-modal classifiers; ``votes`` is part of the names of saved weights.
        self.votes = nn.ModuleDict({m: nn.Linear(width, n_classes) for m in classified})
        self.classifier = nn.Linear(len(self.dims) * width, n_classes)
        others = [m for m in self.dims if text_context and m != SPEECH]
        self.turn_contexts = nn.ModuleDict({m: TurnContext(width, speakers) for m in others})

    def forward(
        self,
        features: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        labels: Tensor | None = None,
        dialogues: Dialogues | None = None,
    ) -> HeadOutput:
        """Classify a batch of whole dialogues; see :meth:`Head.forward` for shapes.

        Args:
            features: see :meth:`Head.forward`.
            lengths: see :meth:`Head.forward`.
            labels: see :meth:`Head.forward`. The label of a turn that is only context is not used:
                give any class.
            dialogues: which utterances belong to one dialogue; None if each utterance is a dialogue
                of its own.

        Returns:
            The output, with a row of logits for every utterance, also for those that are only
            context.

        Raises:
            HeadError: a dialogue is cut, or its utterances are not adjacent, or labels are given
                and all utterances are only context; see also :meth:`Head.forward`.
        """
        hidden, masks = self.inputs(features, lengths)
        n_batch = len(next(iter(masks.values())))
        dialogues = Dialogues.alone(n_batch) if dialogues is None else dialogues
        n_given = len(dialogues.number)
        require(n_given == n_batch, f"dialogues must have {n_batch} utterances, not {n_given}")
        sizes = dialogues.lengths().cpu()

        x = self.represent(hidden, masks, lengths, dialogues)
        present = {m: mask.any(dim=1) for m, mask in masks.items()}
        fused = self.fuse(x, present, sizes)
        outputs = [torch.where(present[m].unsqueeze(1), fused[m], 0.0) for m in self.dims]
        logits: Tensor = self.classifier(self.dropout(torch.cat(outputs, dim=1)))
        if labels is None:
            return HeadOutput(logits, None, {})
        self.require_labels(labels, n_batch)
        labelled = dialogues.labelled().to(logits.device)
        require(len(labelled) > 0, "all utterances of the batch are only context: there is no loss")
        labels = labels[labelled]
        x, present = ({m: z[labelled] for m, z in part.items()} for part in (x, present))
        terms = self.target_terms(logits[labelled], labels)
        if self.weights["uni_modal"]:
            terms["uni_modal"] = self._uni_modal(x, present, labels)
        repeated = self.false_negatives(
            {m: part[labelled] for m, part in hidden.items()},
            {m: part[labelled.to(part.device)] for m, part in lengths.items()},
        )
        terms |= self._inter_modal(x, present, repeated)
        return self.output(logits, terms, self.weights, self.false_negatives.counts(repeated))

    def represent(
        self,
        hidden: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        dialogues: Dialogues,
    ) -> dict[str, Tensor]:
        """Return x_m: modality → (B, W).

        Args:
            hidden: modality → (B, L_m, T_m, D_m) hidden states, as :meth:`inputs` returns them.
            masks: modality → (B, T_m) bool.
            lengths: modality → (B,) int64 valid positions.
            dialogues: the dialogues of the batch.
        """
        tokens = self.projections(hidden)
        x = {m: pooling(tokens[m], masks[m]) for m, pooling in self.poolings.items()}
        if self.context is not None:
            x[SPEECH] = self.context(tokens[SPEECH], masks[SPEECH], lengths[SPEECH], dialogues)
        x |= {m: context(x[m], dialogues) for m, context in self.turn_contexts.items()}
        return {m: x[m] for m in self.dims}

    def fuse(
        self, x: Mapping[str, Tensor], present: Mapping[str, Tensor], sizes: Tensor
    ) -> dict[str, Tensor]:
        """Return o_m: modality → (B, W); x_m without fusion.

        Args:
            x: modality → (B, W) x_m.
            present: modality → (B,) bool, the utterances that have it.
            sizes: (G,) int64, the number of utterances of each dialogue.
        """
        if self.attention is None:
            return dict(x)
        counts = sizes.tolist()
        sequences = {m: by_dialogue(z, counts) for m, z in x.items()}
        h = self.attention(sequences, {m: by_dialogue(p, counts) for m, p in present.items()})
        return {m: by_utterance(gate(sequences[m], h[m]), counts) for m, gate in self.gates.items()}

    def _uni_modal(
        self, x: Mapping[str, Tensor], present: Mapping[str, Tensor], labels: Tensor
    ) -> Tensor:
        losses = []
        for m, classify in self.votes.items():
            logits = classify(self.dropout(x[m][present[m]]))
            # The mean over no utterance is NaN; the sum is a zero with a gradient.
            empty = len(logits) == 0
            losses.append(logits.sum() if empty else self.target_loss(logits, labels[present[m]]))
        return torch.stack(losses).sum()

    def _inter_modal(
        self, x: Mapping[str, Tensor], present: Mapping[str, Tensor], repeated: Repeats
    ) -> dict[str, Tensor]:
        pairs = list(combinations(self.dims, 2))
        terms = {}
        if self.weights["absolute"] and pairs:
            losses = [
                info_nce(
                    x[m],
                    x[n],
                    self.temperature,
                    present[m] & present[n],
                    in_either(repeated, (m, n)),
                )
                for m, n in pairs
            ]
            terms["absolute"] = torch.stack(losses).mean()
        if self.weights["relative"] and pairs:
            losses = [relation_distance(x[m], x[n], present[m] & present[n]) for m, n in pairs]
            terms["relative"] = torch.stack(losses).mean()
        return terms
