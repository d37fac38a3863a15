"""The base class of the heads: hidden states in, outputs and a loss with named terms out."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from .errors import HeadError, require
from .modules.masks import length_mask
from .modules.standardisation import Standardisation
from .objectives import Classes, Objective


class HeadOutput(NamedTuple):
    """The output of a head.

    Attributes:
        logits: (B, C), one row for each utterance: unnormalised class scores, or the outputs that
            the objective of the head explains.
        loss: scalar to minimise; None without labels.
        terms: the named terms of the loss: scalars *before* they are multiplied by their weights,
            detached from the graph, so that you can log and keep them; empty without labels.
        counts: what else a head reports about the batch, by name: scalars that are no losses, such
            as how many pairs a contrastive loss left out. mser logs their means.
    """

    logits: Tensor
    loss: Tensor | None
    terms: dict[str, Tensor]
    counts: Mapping[str, Tensor] = MappingProxyType({})


class Head(nn.Module):
    """Base class of the heads: checks a batch, casts it, and replaces the padding by zeros.

    The logits of an utterance (for a head that reads dialogues: of a dialogue) are the same alone
    and in any batch, and do not depend on the values in the padding. Therefore a head never
    normalises over the batch. Contrastive *losses* compare the utterances of a batch; logits do
    not.

    A modality is only a key of ``dims``: a head treats every name in the same way, unless its own
    page describes an exception.

    Args:
        dims: modality → width D_m of its hidden states; at least one modality. The order is part
            of the head: give the same order when you load its weights.
        n_classes: C, the number of outputs, at least 1.
        n_layers: modality → number of cached layers; 1 each if None.

    Attributes:
        layers: modality → the layers that the head reads, as positions among the cached layers;
            set by each head. A batch holds exactly these layers in this order, so that no other
            layer is read from disk.
        widths: modality → width of what is standardised: D_m, or that of the pooled vectors.
        reads_pooled: whether the head reads pooled features and has ``classify`` for them.
        standardisations: modality → the standardisation of its inputs; empty until
            :meth:`standardise` is called.
        reads_dialogues: whether ``forward`` takes ``dialogues`` (see :mod:`.dialogues`) and needs
            batches of whole dialogues. They may hold turns that are only context.
        default_layers: modality → the encoder's own layer numbers that the head reads by default,
            if these are not all layers. The constructor knows only positions among the cached
            layers: the caller gives the positions of these numbers as ``layer``.
        former_defaults: option → the value that an older head has, from before the option existed,
            if the present default is another. Weights of an older head need these values.
        objective: what the head is trained towards; :class:`Classes` until :meth:`learn`.

    Raises:
        HeadError: there is no modality, a modality has a name that a module cannot have, or a size
            is below its minimum.
    """

    layers: dict[str, tuple[int, ...]]
    widths: dict[str, int]
    standardisations: nn.ModuleDict
    reads_pooled = False
    reads_dialogues = False
    default_layers: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    former_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    __call__: Callable[..., HeadOutput]

    def __init__(
        self, dims: Mapping[str, int], n_classes: int, n_layers: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        self.dims = dict(dims)
        self.n_classes = n_classes
        self.n_layers = dict.fromkeys(dims, 1) if n_layers is None else dict(n_layers)
        require(len(self.dims) > 0, "a head needs at least one modality in dims")
        require(n_classes >= 1, f"n_classes must be at least 1, not {n_classes}")
        self.widths = dict(dims)
        self.standardisations = nn.ModuleDict()
        self._require_modalities("n_layers", self.n_layers)
        self.objective: Objective = Classes(n_classes)
        reserved = nn.ModuleDict()
        for name, width in self.dims.items():
            message = f"a modality cannot be called {name!r}: choose another name"
            require(name != "" and "." not in name and not hasattr(reserved, name), message)
            require(width >= 1, f"the width of {name} must be at least 1, not {width}")
            count = self.n_layers[name]
            require(count >= 1, f"the cached layers of {name} must be at least 1, not {count}")

    def forward(
        self,
        features: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        labels: Tensor | None = None,
    ) -> HeadOutput:
        """Give the outputs for a batch; each head implements this method.

        Args:
            features: modality → (B, L_m, T_m, D_m) floating hidden states, L_m the layers in
                ``self.layers[m]``; (B, T_m, D_m) is accepted if the head reads one layer. Any
                floating dtype: the head casts it to the dtype of its parameters.
            lengths: modality → (B,) int64 valid positions, each in 0 .. T_m; 0 if the utterance
                lacks the modality. No utterance may lack all modalities. Keep the lengths on the
                CPU: the head checks them there without waiting for the device, and moves them.
            labels: (B,) int64 classes in 0 .. C - 1, or the targets of another objective; None to
                compute no loss.

        Raises:
            HeadError: a modality, shape, dtype, length or label does not fit the head.
        """
        raise NotImplementedError

    def learn(self, objective: Objective) -> None:
        """Train the head towards another objective than classes.

        Raises:
            HeadError: the objective has another number of outputs than the head, or the head has a
                loss that this objective does not allow.
        """
        n_outputs = objective.n_outputs
        fits = n_outputs == self.n_classes
        require(fits, f"the objective has {n_outputs} outputs, but the head {self.n_classes}")
        self.objective = objective

    def standardise(self) -> None:
        """Standardise the inputs from now on; until statistics are given they stay as they are.

        Give the statistics of the training part with ``standardisation(m).fit(…)``, or load the
        weights of a head that had them.
        """
        self.standardisations = nn.ModuleDict(
            {m: Standardisation(len(self.layers[m]), width) for m, width in self.widths.items()}
        )

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load weights; those of a head with standardised inputs make the inputs standardised."""
        if not self.standardisations and any(k.startswith("standardisations.") for k in state_dict):
            self.standardise()
        return super().load_state_dict(state_dict, strict, assign)

    def standardisation(self, modality: str) -> Standardisation:
        """Return the standardisation of a modality, after :meth:`standardise`."""
        module = self.standardisations[modality]
        assert isinstance(module, Standardisation)  # noqa: S101 -- for the type
        return module

    def standardised(self, modality: str, x: Tensor) -> Tensor:
        """Return the standardised (B, L_m, …, W_m) inputs of a modality."""
        if modality not in self.standardisations:
            return x
        result: Tensor = self.standardisations[modality](x)
        return result

    def classify(
        self,
        pooled: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        labels: Tensor | None = None,
    ) -> HeadOutput:
        """Classify a batch of pooled features; only a head with ``reads_pooled`` implements this.

        Args:
            pooled: modality → (B, L_m, 2 · D_m) floating: the mean over the frames, then the
                standard deviation, of the layers in ``self.layers[m]``.
            lengths: modality → (B,) int64; 0 if the utterance lacks the modality.
            labels: see :meth:`forward`.
        """
        raise NotImplementedError

    def turns(self) -> tuple[str | None, ...]:
        """Return the modalities that take turns with a batch, in their order.

        Most heads have no turns: a batch gives one forward pass, one loss and one optimizer step.
        If a head has turns, the trainer calls ``forward(…, turn=m)`` and makes an optimizer step
        for each modality m. None in place of m is a step with the loss of all modalities, for which
        the trainer calls ``forward`` without ``turn``.
        """
        return ()

    def representations(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]
    ) -> dict[str, dict[str, Tensor]]:
        """Return the vectors of single modalities that a figure can show, stage by stage.

        A head implements this method if each modality has its own vector of an utterance. It must
        not read dialogues: the vectors of an utterance are the same alone and in any batch.

        Args:
            features: see :meth:`forward`.
            lengths: see :meth:`forward`.

        Returns:
            stage → modality → (B, D), the stages in their order, such as ``before alignment`` and
            ``after alignment``. The vector of an utterance that lacks the modality has no meaning.

        Raises:
            HeadError: the head has no such vectors, or the batch does not fit the head.
        """
        raise HeadError(f"{type(self).__name__} has no vectors of single modalities to show")

    def target_terms(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss of (B, C) outputs by its terms, such as ``cross_entropy``; scalars."""
        return self.objective.terms(logits, labels)

    def target_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of :meth:`target_terms`, a scalar."""
        return torch.stack([*self.target_terms(logits, labels).values()]).sum()

    def inputs(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Check a batch, cast it to the dtype of the parameters, standardise it, clear its padding.

        The padding is replaced before the first layer: otherwise a NaN in the padding would reach
        the gradients, even if the forward pass masks it (0 · NaN is NaN).

        Returns:
            modality → (B, L_m, T_m, D_m) hidden states, and modality → (B, T_m) bool masks.
        """
        self._require_modalities("features", features)
        self._require_modalities("lengths", lengths)
        dtype = next(self.parameters()).dtype
        n_batch = len(next(iter(features.values())))
        clean, masks = {}, {}
        for name, width in self.dims.items():
            x, length, n_read = features[name], lengths[name], len(self.layers[name])
            got = f"{tuple(x.shape)} of {x.dtype}"
            if x.dim() == 3 and n_read == 1:
                x = x.unsqueeze(1)
            fits = x.dim() == 4 and x.shape[1] == n_read and x.shape[3] == width
            require(
                fits and x.is_floating_point() and 0 not in x.shape and len(x) == n_batch,
                f"features of {name} must be floating ({n_batch}, {n_read}, time, {width}), "
                f"not {got}",
            )
            require(
                length.shape == (n_batch,) and length.dtype == torch.int64,
                f"lengths of {name} must be int64 ({n_batch},), "
                f"not {tuple(length.shape)} of {length.dtype}",
            )
            size = x.shape[2]
            inside = bool(((length >= 0) & (length <= size)).all())
            require(inside, f"lengths of {name} must be in 0 .. {size}, not {length.tolist()}")
            masks[name] = length_mask(length.to(x.device), size)
            x = x.to(dtype, copy=True)
            if not self.reads_pooled:  # else the pooled vectors are standardised
                x = self.standardised(name, x)
            clean[name] = _without_padding(x, masks[name], length)
        longest = torch.stack([length.cpu() for length in lengths.values()]).amax(dim=0)
        empty = (longest == 0).nonzero().flatten().tolist()
        require(not empty, f"utterances {empty} of the batch have no modality: leave them out")
        return clean, masks

    def classified(self, logits: Tensor, labels: Tensor | None) -> HeadOutput:
        """Return the output of a head whose only loss is that of its objective."""
        if labels is None:
            return HeadOutput(logits, None, {})
        self.require_labels(labels, len(logits))
        return self.output(logits, self.target_terms(logits, labels), {})

    def output(
        self,
        logits: Tensor,
        terms: Mapping[str, Tensor],
        weights: Mapping[str, float],
        counts: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> HeadOutput:
        """Return the output; the loss is the sum of the terms times their weights (default 1)."""
        weighted = [weights.get(name, 1.0) * term for name, term in terms.items()]
        detached = {name: term.detach() for name, term in terms.items()}
        return HeadOutput(logits, torch.stack(weighted).sum(), detached, counts)

    def require_labels(self, labels: Tensor, n_batch: int) -> None:
        """Raise :class:`HeadError` unless labels are targets of the objective, for a batch."""
        self.objective.require_targets(labels, n_batch)

    def _require_modalities(self, argument: str, given: Mapping[str, object]) -> None:
        names, expected = ", ".join(given) or "no modality", ", ".join(self.dims)
        same = set(given) == set(self.dims)
        require(same, f"{argument} must have the modalities {expected}, but has {names}")


def _without_padding(x: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
    """Set the padding of (B, L, T, D) to zero in place."""
    if x.is_cuda:
        return x.masked_fill_(~mask[:, None, :, None], 0.0)
    for i, length in enumerate(lengths.tolist()):
        x[i, :, length:] = 0.0  # on a CPU this is cheaper than a mask over all positions
    return x
