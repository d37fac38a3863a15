"""Counts of utterances by class, split, session and speaker, compared with published counts."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .utterance import Corpus, PublishedCounts, Utterance


@dataclass(frozen=True)
class PublishedComparison:
    """Published counts of a field, and the counts of this corpus (``here``)."""

    published: PublishedCounts
    here: Mapping[str, int]

    @property
    def rows(self) -> list[tuple[str, int, int]]:
        """Value, published, here: in the publication's order, then the values it does not have."""
        published = self.published.counts
        values = [*published, *sorted(set(self.here) - set(published))]
        return [(value, published.get(value, 0), self.here.get(value, 0)) for value in values]

    @property
    def differs(self) -> bool:
        """Whether any count differs from the published one."""
        return any(theirs != ours for _, theirs, ours in self.rows)


def by_label(corpus: Corpus) -> dict[str, int]:
    """Count the utterances of each class; a class that does not occur counts zero.

    Labels that are not classes come after the classes. Utterances without a label are not counted.
    """
    return dict.fromkeys(corpus.classes, 0) | by_field(corpus.utterances, "label")


def by_class_set(corpus: Corpus) -> dict[str, dict[str, int]]:
    """Count the utterances of each class of each class set, by its name."""
    return {name: by_label(corpus.in_classes(name)) for name in corpus.class_sets}


def by_field(utterances: Iterable[Utterance], field: str) -> dict[str, int]:
    """Count utterances by the value of a field, in order of appearance; ``None`` is not counted."""
    values = (getattr(utterance, field) for utterance in utterances)
    return dict(Counter(value for value in values if value is not None))


def published_comparisons(corpus: Corpus) -> list[PublishedComparison]:
    """Compare the corpus with each of its published counts."""
    return [
        PublishedComparison(published, _count_as(published, corpus))
        for published in corpus.published
    ]


def identical_clips(
    utterances: Iterable[Utterance], hashes: Mapping[str, str]
) -> list[list[Utterance]]:
    """Return the groups of utterances whose clips have the same bytes but different labels.

    ``hashes`` gives the hashes of the clips by utterance id; utterances without one are ignored.
    """
    groups: defaultdict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        if utterance.id in hashes:
            groups[hashes[utterance.id]].append(utterance)
    return [group for group in groups.values() if len({member.label for member in group}) > 1]


def _count_as(published: PublishedCounts, corpus: Corpus) -> dict[str, int]:
    """Count the utterances of ``corpus`` in the way of a publication."""
    utterances = corpus.utterances
    if published.classes is not None:
        in_classes = corpus.in_classes(published.classes).utterances
        utterances = [utterance for utterance in in_classes if utterance.label is not None]
    return by_field(utterances, published.by)
