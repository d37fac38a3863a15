"""The table of targets: what a head can predict of an utterance, one line each.

A training predicts one target or several at once: at most one over the classes of the corpus, and
any number of attributes, which are numbers. The loss and the metrics follow from the target, not
from the head: see ``heads/objectives.py`` and ``evaluation/scorers.py``.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from .errors import UsageError, unknown

Value = Any
"""What is known or predicted of an utterance.

It is the name of a class for the target ``emotion`` alone. Otherwise it is a tuple: what belongs to
the target over classes (a name for ``emotion``, a number for each class for ``votes`` and
``labels``), then each attribute.
"""


@dataclass(frozen=True)
class Target:
    """What mser knows of a target."""

    name: str
    """As in ``--target``."""
    text: str
    """What it is, in one line."""
    losses: tuple[str, ...]
    """The losses that can train it, the default first."""
    monitor: str
    """The metric that chooses the epoch by default."""
    over_classes: bool = False
    """Whether a head has an output for each class of the corpus."""


def _attribute(name: str, text: str = "a number that the corpus gives") -> Target:
    return Target(name, text, ("ccc", "mse"), "ccc")


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("emotion", "one class", ("cross_entropy",), "weighted_f1", True),
        _attribute("valence", "how pleasant, a number on the corpus's own scale"),
        _attribute("arousal", "how active, a number on the corpus's own scale"),
        _attribute("dominance", "how strong, a number on the corpus's own scale"),
        Target(
            "votes",
            "the share of the annotators' votes for each class",
            ("cross_entropy", "kl"),
            "weighted_f1",
            True,
        ),
        Target(
            "labels",
            "several classes at once: those with at least an equal share of the votes",
            ("bce",),
            "macro_f1",
            True,
        ),
    )
}
"""Name → target. Any other attribute of a corpus is a target too."""

EMOTION = ("emotion",)
"""The default."""


@dataclass(frozen=True)
class Targets:
    """What a training predicts.

    Args:
        names: the targets, the one over classes first if there is one.
        classes: the classes of the corpus, in their order.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]

    @cached_property
    def over_classes(self) -> str | None:
        """The name of the target over classes, if there is one."""
        known = (name for name in self.names if name in TARGETS and TARGETS[name].over_classes)
        return next(known, None)

    @cached_property
    def attributes(self) -> tuple[str, ...]:
        """The names of the attributes, in their order."""
        return tuple(name for name in self.names if name != self.over_classes)

    @property
    def n_outputs(self) -> int:
        """How many numbers a head gives for an utterance."""
        return self.n_classes + len(self.attributes)

    @property
    def n_classes(self) -> int:
        """How many of the outputs belong to the target over classes; they come first."""
        return len(self.classes) if self.over_classes else 0

    def missing(self, utterance: Any) -> str | None:
        """Return why an utterance cannot be trained on; ``None`` if everything is known of it."""
        if self.over_classes == "emotion" and utterance.label is None:
            return "it has no label"
        if self.over_classes == "labels" and not utterance.votes:
            return "it has no votes"
        if self.over_classes == "votes" and not any(utterance.votes.values()):
            return "it has no votes"
        for name in self.attributes:
            if name not in utterance.attributes:
                return f"it has no {name}"
        return None

    def value(self, utterance: Any) -> Value:
        """Return what is known of an utterance; see :data:`Value`."""
        if self.names == EMOTION:
            return str(utterance.label)
        return (*self._of_classes(utterance), *(utterance.attributes[a] for a in self.attributes))

    def predicted(self, row: Sequence[float]) -> Value:
        """Return the prediction of a head from its ``n_outputs`` numbers; see :data:`Value`.

        The numbers are probabilities of the classes, then attributes on their own scale.
        """
        of_classes = row[: self.n_classes]
        if self.over_classes == "emotion":
            best = self.classes[max(range(len(of_classes)), key=of_classes.__getitem__)]
            return best if self.names == EMOTION else (best, *row[self.n_classes :])
        return tuple(row)

    def chance(self, utterances: Sequence[Any]) -> Value:
        """Return the prediction that needs no features, from the utterances of a training part.

        It is the most frequent class, the mean of the votes or labels, and the mean of each
        attribute.
        """
        means = [fmean(u.attributes[name] for u in utterances) for name in self.attributes]
        if self.over_classes == "emotion":
            best = Counter(str(utterance.label) for utterance in utterances).most_common(1)[0][0]
            return best if self.names == EMOTION else (best, *means)
        rows = zip(*map(self._of_classes, utterances), strict=True) if self.over_classes else ()
        return (*map(fmean, rows), *means)

    def chance_text(self) -> str:
        """Return what :meth:`chance` predicts, in words."""
        texts = {
            "emotion": ["the most frequent class"],
            "votes": ["the mean of the votes"],
            "labels": ["the share of each class"],
        }.get(self.over_classes or "", [])
        texts += ["the mean of each attribute"] if self.attributes else []
        return f"always {' and '.join(texts)} of the training part"

    def __str__(self) -> str:
        """Return what is predicted, in a few words."""
        texts = {
            "emotion": [f"{len(self.classes)} classes"],
            "votes": [f"votes for {len(self.classes)} classes"],
            "labels": [f"several of {len(self.classes)} classes"],
        }.get(self.over_classes or "", [])
        return ", ".join([*texts, *self.attributes])

    def _of_classes(self, utterance: Any) -> tuple[Any, ...]:
        votes = [float(utterance.votes.get(name, 0.0)) for name in self.classes]
        total = sum(votes)
        match self.over_classes:
            case "emotion":
                return (str(utterance.label),)
            case "votes":
                return tuple(number / total for number in votes)
            case "labels":  # a class that all labels of an utterance share equally is one of them
                share = total * (1 - _ROUNDING)
                return tuple(float(n > 0 and n * len(votes) >= share) for n in votes)
        return ()


_ROUNDING = 1e-9


def checked_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of targets, the one over classes first.

    Raises:
        UsageError: there is none, one is repeated, or two are over classes.
    """
    given = tuple(names)
    if not given or len(set(given)) < len(given) or not all(given):
        raise UsageError(
            f"target '{','.join(given)}': give one or more different targets, such as "
            "valence,arousal"
        )
    over = [name for name in given if name in TARGETS and TARGETS[name].over_classes]
    if len(over) > 1:
        raise UsageError(
            f"target '{','.join(given)}': {' and '.join(over)} are both over the classes: give one "
            "of them, and train another run for the other"
        )
    return (*over, *(name for name in given if name not in over))


def losses_of(names: Sequence[str], loss: str | None) -> dict[str, str]:
    """Return target → its loss.

    ``loss`` is the user's choice for the targets that know it; the others have their default.

    Raises:
        UsageError: no target knows the loss.
    """
    known = {name: (TARGETS.get(name) or _attribute(name)).losses for name in names}
    if loss is not None and not any(loss in losses for losses in known.values()):
        choices = dict.fromkeys(name for losses in known.values() for name in losses)
        raise unknown(f"loss of {', '.join(names)}", loss, choices)
    return {name: loss if loss in losses else losses[0] for name, losses in known.items()}


def monitor_of(names: Sequence[str]) -> str:
    """Return the metric that chooses the epoch by default."""
    return (TARGETS.get(names[0]) or _attribute(names[0])).monitor


def require_known(
    names: Sequence[str], corpus: str, attributes: Callable[[], Iterable[str]]
) -> None:
    """Raise an error unless the attributes among the targets are those of the corpus.

    Raises:
        UsageError: the corpus has no attribute of that name.
    """
    wanted = [n for n in names if not (n in TARGETS and TARGETS[n].over_classes)]
    if not wanted:
        return
    known = set(attributes())
    for name in wanted:
        if name in TARGETS and name not in known:
            raise UsageError(
                f"no utterance of {corpus} in the cache has a {name}: give another --target, or "
                "extract the corpus again if it has one"
            )
        if name not in known:
            raise unknown(f"target of {corpus}", name, [*TARGETS, *sorted(known - set(TARGETS))])
