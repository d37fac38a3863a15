"""What every head is: cached hidden states in, class logits and a loss with named terms out."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import require
from .modules.masks import length_mask


class HeadOutput(NamedTuple):
    """What a head returns.

    Attributes:
        logits: (B, C), one row of unnormalised class scores an utterance.
        loss: scalar to minimise; None where no labels were given.
        terms: the named terms of the loss, scalars *before* their weights and detached from the
            graph, so that they may be logged and kept; empty where no labels were given.
    """

    logits: Tensor
    loss: Tensor | None
    terms: dict[str, Tensor]


class Head(nn.Module):
    """Base of the heads: it knows the input's shape, and checks, casts and cleans a batch.

    A head's logits for an utterance are the same alone and in any batch, whatever the padding
    holds; so a head never normalises over the batch. (Contrastive *losses* do compare the
    utterances of a batch; logits never do.)

    Args:
        dims: modality → width D_m of its hidden states; at least one modality. The order is part
            of the head: the same order must be given when its weights are loaded again.
        n_classes: C, at least 2.
        n_layers: modality → number of cached layers; 1 each if None.

    Attributes:
        layers: modality → the cached layer positions that the head reads, set by each head. A
            batch holds exactly those layers in that order, so nothing else need be read from disk.
        reads_dialogues: whether ``forward`` takes ``dialogues`` (see :mod:`.dialogues`) and wants
            batches of whole dialogues.
        class_weights: (C,) weights of the classes in the cross-entropy, or None for equal ones.
            They belong to the training and are not among the saved weights.

    Raises:
        HeadError: no modality, a name that a module cannot have, or a size below its minimum.
    """

    layers: dict[str, tuple[int, ...]]
    reads_dialogues = False
    class_weights: Tensor | None
    __call__: Callable[..., HeadOutput]

    def __init__(
        self, dims: Mapping[str, int], n_classes: int, n_layers: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        self.dims = dict(dims)
        self.n_classes = n_classes
        self.n_layers = dict.fromkeys(dims, 1) if n_layers is None else dict(n_layers)
        require(len(self.dims) > 0, "a head needs at least one modality in dims")
        require(n_classes >= 2, f"n_classes must be at least 2, not {n_classes}")
        self._require_modalities("n_layers", self.n_layers)
        self.register_buffer("class_weights", None, persistent=False)
        reserved = nn.ModuleDict()
        for name, width in self.dims.items():
            message = f"a modality cannot be called {name!r}, choose another name"
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
        """Classify a batch; each head defines it.

        Args:
            features: modality → (B, L_m, T_m, D_m) floating hidden states, L_m the layers of
                ``self.layers[m]``; (B, T_m, D_m) will do where the head reads one layer. Any
                floating dtype: it is cast to the dtype of the parameters.
            lengths: modality → (B,) int64 valid positions, each in 0 .. T_m: 0 where an utterance
                lacks the modality, but no utterance may lack all. Best left on the CPU, where
                checking them makes no device wait; the head moves them.
            labels: (B,) int64 classes in 0 .. C - 1, or None to have no loss.

        Raises:
            HeadError: a modality, shape, dtype, length or label that does not fit the head.
        """
        raise NotImplementedError

    def turns(self) -> tuple[str, ...]:
        """Return the modalities that take turns in a training step, in order.

        Most heads have none: a step is one forward pass with one loss. Where there are some, the
        trainer calls ``forward(…, turn=m)`` and moves the weights for each of them in turn.
        """
        return ()

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of (B, C) logits, each class by its weight in ``class_weights``."""
        return F.cross_entropy(logits, labels, weight=self.class_weights)

    def inputs(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Check a batch, zero its padding and cast it to the dtype of the parameters.

        The padding is cleaned here, before any parameter meets it: later, a NaN in it would reach
        the gradients even where the forward pass masks it (0 · NaN is NaN).

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
            clean[name] = _without_padding(x.to(dtype, copy=True), masks[name], length)
        longest = torch.stack([length.cpu() for length in lengths.values()]).amax(dim=0)
        empty = (longest == 0).nonzero().flatten().tolist()
        require(not empty, f"utterances {empty} of the batch have no modality at all")
        return clean, masks

    def classified(self, logits: Tensor, labels: Tensor | None) -> HeadOutput:
        """Return what a head returns whose loss is the cross-entropy alone."""
        if labels is None:
            return HeadOutput(logits, None, {})
        self.require_labels(labels, len(logits))
        return self.output(logits, {"cross_entropy": self.cross_entropy(logits, labels)}, {})

    def output(
        self, logits: Tensor, terms: Mapping[str, Tensor], weights: Mapping[str, float]
    ) -> HeadOutput:
        """Sum the terms, each by its weight (1 where ``weights`` names none), to the loss."""
        weighted = [weights.get(name, 1.0) * term for name, term in terms.items()]
        detached = {name: term.detach() for name, term in terms.items()}
        return HeadOutput(logits, torch.stack(weighted).sum(), detached)

    def require_labels(self, labels: Tensor, n_batch: int) -> None:
        """Raise :class:`HeadError` unless labels are (B,) int64 classes in 0 .. C - 1."""
        require(
            labels.shape == (n_batch,) and labels.dtype == torch.int64,
            f"labels must be int64 ({n_batch},), not {tuple(labels.shape)} of {labels.dtype}",
        )
        inside = bool(((labels >= 0) & (labels < self.n_classes)).all())
        require(inside, f"labels must be in 0 .. {self.n_classes - 1}, not {labels.tolist()}")

    def _require_modalities(self, what: str, given: Mapping[str, object]) -> None:
        names, wanted = ", ".join(given) or "no modality", ", ".join(self.dims)
        require(set(given) == set(self.dims), f"{what} must name {wanted}, but it names {names}")


def _without_padding(x: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
    """Zero the padding of (B, L, T, D) in place."""
    if x.is_cuda:
        return x.masked_fill_(~mask[:, None, :, None], 0.0)
    for at, length in enumerate(lengths.tolist()):
        x[at, :, length:] = 0.0  # a processor need not look at what is no padding
    return x
