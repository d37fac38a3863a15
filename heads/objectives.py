"""What a head is trained towards: the meaning of its outputs, their loss, and their predictions.

A head turns hidden states into outputs, (B, C). An objective turns outputs and what is known of the
utterances into a loss. So every head can be trained towards classes, votes, several classes at once
and attributes. A head that compares utterances or modalities by their targets, such as the turns of
``hbf``, asks the objective for the error of each utterance and for the divergence of two outputs;
:attr:`Objective.has_classes` says whether utterances have one class each.

All calculations are in float32 or wider, also under autocast.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import require

_EPS = 1e-8


class Objective(nn.Module):
    """Base class of the objectives.

    The targets of a batch are (B,) int64 classes for :class:`Classes`, and otherwise (B, K)
    floating numbers; each class explains its own.

    Attributes:
        n_outputs: C, the outputs of the head.
        n_targets: K, the numbers that are known of an utterance.
        has_classes: whether :meth:`classes` gives the class of each utterance.
    """

    n_outputs: int
    n_targets: int
    has_classes = False

    def require_targets(self, targets: Tensor, n_batch: int) -> None:
        """Raise :class:`HeadError` unless the targets are those of a batch."""
        require(
            targets.shape == (n_batch, self.n_targets) and targets.is_floating_point(),
            f"labels must be floating ({n_batch}, {self.n_targets}), not {tuple(targets.shape)} of "
            f"{targets.dtype}",
        )
        require(bool(targets.isfinite().all()), "labels must be finite")

    def terms(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the loss by the names of its terms: scalars, whose sum is minimised."""
        raise NotImplementedError

    def errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the error of each utterance, (B,), at least 0; 0 is a perfect prediction."""
        raise NotImplementedError

    def divergence(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """Return how far outputs are from those of a teacher, (B,), at least 0; both (B, C)."""
        raise NotImplementedError

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the predictions, (B, C) float64: probabilities, or numbers on their own scale."""
        raise NotImplementedError

    def classes(self, targets: Tensor) -> Tensor:
        """Return the class of each utterance, (B,) int64; only with ``has_classes``."""
        raise NotImplementedError


class Classes(Objective):
    """One class for each utterance; targets (B,) int64 in 0 .. C - 1, or (B, 1) floating.

    The loss is the mean over utterances of w_y · -log p_y, the term ``cross_entropy``. The error of
    an utterance is -log p_y, and the divergence is KL(teacher ‖ outputs).

    Attributes:
        class_weights: (C,) weights w of the classes in the loss, or None for equal weights. They
            belong to the training and are not saved. The loss is not divided by the sum of the
            weights in the batch, as PyTorch's is: in a batch of one class that would undo them.
        offset: (C,) floating numbers that :meth:`predictions` adds to the outputs, or None. They
            are saved with the head, and are in no loss.
    """

    has_classes = True
    n_targets = 1
    class_weights: Tensor | None
    offset: Tensor | None

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.n_outputs = n_outputs
        self.register_buffer("class_weights", None, persistent=False)
        self.register_buffer("offset", None)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, *others: Any
    ) -> None:
        # PyTorch copies into buffers that exist.
        saved = state_dict.get(f"{prefix}offset")
        self.offset = None if saved is None else saved.clone()
        super()._load_from_state_dict(state_dict, prefix, *others)

    def require_targets(self, targets: Tensor, n_batch: int) -> None:
        """Raise :class:`HeadError` unless the targets are (B,) int64 classes in 0 .. C - 1."""
        if targets.dim() == 2:
            super().require_targets(targets, n_batch)
            targets = self.classes(targets)
        require(
            targets.shape == (n_batch,) and targets.dtype == torch.int64,
            f"labels must be int64 ({n_batch},), not {tuple(targets.shape)} of {targets.dtype}",
        )
        inside = bool(((targets >= 0) & (targets < self.n_outputs)).all())
        require(inside, f"labels must be in 0 .. {self.n_outputs - 1}, not {targets.tolist()}")

    def terms(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """See :meth:`Objective.terms`."""
        labels = self.classes(targets)
        total = F.cross_entropy(outputs, labels, weight=self.class_weights, reduction="sum")
        return {"cross_entropy": total / len(labels)}

    def errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See :meth:`Objective.errors`."""
        rows = torch.arange(len(targets), device=targets.device)
        return -log_probabilities(outputs)[rows, self.classes(targets)]

    def divergence(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """See :meth:`Objective.divergence`."""
        return _kl(log_probabilities(outputs), log_probabilities(teacher))

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the probabilities of the classes."""
        logits = outputs.double()
        if self.offset is not None:
            logits = logits + self.offset.to(logits.device)
        return logits.softmax(dim=1)

    def classes(self, targets: Tensor) -> Tensor:
        """See :meth:`Objective.classes`."""
        return targets[:, 0].long() if targets.dim() == 2 else targets


class Votes(Objective):
    """The distribution of the annotators' votes; targets (B, C) floating, each row sums to 1.

    The loss is the mean over utterances of the cross-entropy -Σ_c q_c log p_c ("soft labels": Fayek
    et al., IJCNN 2016), or of KL(q ‖ p) = Σ_c q_c log(q_c / p_c), which differs only by a constant.
    The term has the name of the loss. The error of an utterance is KL(q ‖ p).

    Args:
        n_outputs: C.
        loss: ``cross_entropy`` or ``kl``.

    Attributes:
        class_weights: (C,), or None: as those of :class:`Classes`, with w_c q_c in place of q_c.
    """

    class_weights: Tensor | None

    def __init__(self, n_outputs: int, loss: str = "cross_entropy") -> None:
        super().__init__()
        self.n_outputs = self.n_targets = n_outputs
        self.loss = loss
        self.register_buffer("class_weights", None, persistent=False)

    def terms(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """See :meth:`Objective.terms`."""
        log_p = log_probabilities(outputs)
        targets = targets.to(log_p.dtype)
        weighted = targets if self.class_weights is None else targets * self.class_weights
        loss = -(weighted * log_p).sum(dim=1)
        if self.loss == "kl":
            loss = loss + torch.xlogy(weighted, targets).sum(dim=1)
        return {self.loss: loss.mean()}

    def errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See :meth:`Objective.errors`."""
        log_p = log_probabilities(outputs)
        targets = targets.to(log_p.dtype)
        return (torch.xlogy(targets, targets) - targets * log_p).sum(dim=1).clamp(min=0)

    def divergence(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """See :meth:`Objective.divergence`."""
        return _kl(log_probabilities(outputs), log_probabilities(teacher))

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the probabilities of the classes."""
        return outputs.double().softmax(dim=1)


class Labels(Objective):
    """Several classes at once; targets (B, C) floating, 1 for a class that is present and else 0.

    The loss is the binary cross-entropy, the term ``bce``: the mean over utterances and classes of
    -y log σ(x) - (1 - y) log(1 - σ(x)). The error of an utterance is its mean over the classes, and
    the divergence the mean over the classes of KL(teacher ‖ outputs) of two Bernoulli
    distributions.
    """

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.n_outputs = self.n_targets = n_outputs

    def terms(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """See :meth:`Objective.terms`."""
        return {"bce": self.errors(outputs, targets).mean()}

    def errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See :meth:`Objective.errors`."""
        x = _wide(outputs)
        targets = targets.to(x.dtype)
        return F.binary_cross_entropy_with_logits(x, targets, reduction="none").mean(dim=1)

    def divergence(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """See :meth:`Objective.divergence`."""
        x, t = _wide(outputs), _wide(teacher)
        p = t.sigmoid()
        present = p * (F.logsigmoid(t) - F.logsigmoid(x))
        absent = (1 - p) * (F.logsigmoid(-t) - F.logsigmoid(-x))
        return (present + absent).mean(dim=1)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the probability of each class."""
        return outputs.double().sigmoid()


class Attributes(Objective):
    """Numbers such as valence; targets (B, C) floating on their own scale.

    The outputs are in units of the training part: y = mean + std · output. The mean and the
    standard deviation of each attribute are saved with the head. The loss, a term of its own name,
    is the mean over the attributes of

    - ``ccc``: 1 - CCC over the batch (Weninger et al., IJCAI 2016), see :func:`concordance`. It
      needs batches of several utterances: that of one utterance has no gradient.
    - ``mse``: the squared error of the outputs, averaged over the batch, in units of the variance.

    The error of an utterance is the mean over the attributes of its squared error in these units,
    and so is the divergence.

    Args:
        n_outputs: C, the attributes.
        loss: ``ccc`` or ``mse``.

    Attributes:
        mean: (C,) floating buffer, 0 until :meth:`fit`.
        std: (C,) floating buffer, 1 until :meth:`fit`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_outputs: int, loss: str = "ccc") -> None:
        super().__init__()
        self.n_outputs = self.n_targets = n_outputs
        self.loss = loss
        self.register_buffer("mean", torch.zeros(n_outputs, dtype=torch.float64))
        self.register_buffer("std", torch.ones(n_outputs, dtype=torch.float64))

    def fit(self, targets: Tensor) -> None:
        """Take mean and standard deviation (divisor n) of (n, C) targets; 1 if all are equal."""
        targets = targets.double()
        std = targets.std(dim=0, correction=0)
        flat = std <= 1e-9 * targets.abs().amax(dim=0)
        self.mean.copy_(targets.mean(dim=0))
        self.std.copy_(torch.where(flat, 1.0, std))

    def standardised(self, targets: Tensor) -> Tensor:
        """Return targets in units of the training part, as the outputs are."""
        return (targets - self.mean) / self.std

    def terms(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """See :meth:`Objective.terms`."""
        x = _wide(outputs)
        z = self.standardised(targets).to(x.dtype)
        if self.loss == "mse":
            return {"mse": F.mse_loss(x, z)}
        return {"ccc": (1 - concordance(x, z)).mean()}

    def errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See :meth:`Objective.errors`."""
        x = _wide(outputs)
        return (x - self.standardised(targets).to(x.dtype)).square().mean(dim=1)

    def divergence(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """See :meth:`Objective.divergence`."""
        return (_wide(outputs) - _wide(teacher)).square().mean(dim=1)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the attributes on their own scale."""
        mean, std = (buffer.to(outputs.device).double() for buffer in (self.mean, self.std))
        return outputs.double() * std + mean


class Joined(Objective):
    """Several objectives side by side: the outputs and the targets of each follow one another.

    The terms are those of all parts, with equal weights [interpretation]. The error and the
    divergence are sums.

    Args:
        parts: name → objective; a :class:`Classes` has one column of the targets.
    """

    def __init__(self, parts: Mapping[str, Objective]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.n_outputs = sum(part.n_outputs for part in parts.values())
        self.n_targets = sum(part.n_targets for part in parts.values())
        self.has_classes = any(part.has_classes for part in parts.values())

    def require_targets(self, targets: Tensor, n_batch: int) -> None:
        """See :meth:`Objective.require_targets`."""
        super().require_targets(targets, n_batch)
        for part, _, known in self._divided(None, targets):
            part.require_targets(known, n_batch)

    def terms(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """See :meth:`Objective.terms`."""
        terms: dict[str, Tensor] = {}
        for part, of_part, known in self._divided(outputs, targets):
            terms |= part.terms(of_part, known)
        return terms

    def errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See :meth:`Objective.errors`."""
        errors = [part.errors(x, known) for part, x, known in self._divided(outputs, targets)]
        return torch.stack(errors).sum(dim=0)

    def divergence(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """See :meth:`Objective.divergence`."""
        parts = self._divided(outputs, None)
        teachers = self._divided(teacher, None)
        pairs = zip(parts, teachers, strict=True)
        return torch.stack([part.divergence(x, t) for (part, x, _), (_, t, _) in pairs]).sum(dim=0)

    def predictions(self, outputs: Tensor) -> Tensor:
        """See :meth:`Objective.predictions`."""
        parts = self._divided(outputs, None)
        return torch.cat([part.predictions(x) for part, x, _ in parts], dim=1)

    def classes(self, targets: Tensor) -> Tensor:
        """See :meth:`Objective.classes`."""
        parts = self._divided(None, targets)
        return next(part.classes(known) for part, _, known in parts if part.has_classes)

    def divided(self, targets: Tensor) -> list[tuple[Objective, Tensor]]:
        """Return each part with its columns of the targets."""
        return [(part, known) for part, _, known in self._divided(None, targets)]

    def _divided(
        self, outputs: Tensor | None, targets: Tensor | None
    ) -> Sequence[tuple[Objective, Tensor, Tensor]]:
        """Return each part with its columns; a tensor that is not given has no columns."""
        divided = []
        first_output = first_target = 0
        none = torch.empty(0)
        for part in self.parts.values():
            assert isinstance(part, Objective)  # noqa: S101 -- for the type
            last_output, last_target = first_output + part.n_outputs, first_target + part.n_targets
            x = none if outputs is None else outputs[:, first_output:last_output]
            known = none if targets is None else targets[:, first_target:last_target]
            divided.append((part, x, known))
            first_output, first_target = last_output, last_target
        return divided


def concordance(x: Tensor, y: Tensor) -> Tensor:
    """Return the concordance correlation coefficient of each column of (B, C) tensors, (C,).

    CCC = 2 s_xy / (s_x² + s_y² + (x̄ - ȳ)²), with the divisor B in variances and covariance (Lin,
    Biometrics 45, 1989). It is 0 if a column of ``x`` or ``y`` is constant.
    """
    dx, dy = x - x.mean(dim=0), y - y.mean(dim=0)
    covariance = (dx * dy).mean(dim=0)
    spread = dx.square().mean(dim=0) + dy.square().mean(dim=0)
    return 2 * covariance / (spread + (x.mean(dim=0) - y.mean(dim=0)).square() + _EPS)


def log_probabilities(logits: Tensor) -> Tensor:
    """(B, C) logits to log-probabilities, float32 or wider, also under autocast."""
    with torch.autocast(logits.device.type, enabled=False):
        return _wide(logits).log_softmax(dim=1)


def _kl(log_p: Tensor, log_teacher: Tensor) -> Tensor:
    return F.kl_div(log_p, log_teacher, reduction="none", log_target=True).sum(dim=1)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
