"""What a corpus holds, counted: by class, split, session and speaker, and beside a publication."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .utterance import Corpus, Published, Utterance


@dataclass(frozen=True)
class PublishedComparison:
    """How many utterances of each value are published, and how many we find."""

    published: Published
    here: Mapping[str, int]

    @property
    def rows(self) -> list[tuple[str, int, int]]:
        """Value, published, here, in the publication's order, and then what it has not."""
        values = [*self.published.counts, *sorted(set(self.here) - set(self.published.counts))]
        return [(one, self.published.counts.get(one, 0), self.here.get(one, 0)) for one in values]

    @property
    def differs(self) -> bool:
        """Whether any count is another one than the published."""
        return any(theirs != ours for _, theirs, ours in self.rows)


def by_label(corpus: Corpus) -> dict[str, int]:
    """Count the utterances of each class; one that does not occur counts zero.

    A label that is no class comes after them, and what has no label is not counted.
    """
    return dict.fromkeys(corpus.classes, 0) | by_field(corpus.utterances, "label")


def by_class_set(corpus: Corpus) -> dict[str, dict[str, int]]:
    """Count the utterances of each class of each class set, by its name."""
    return {name: by_label(corpus.in_classes(name)) for name in corpus.class_sets}


def by_field(utterances: Iterable[Utterance], field: str) -> dict[str, int]:
    """Count utterances by the value of a field, in order of appearance; ``None`` is no value."""
    values = (getattr(one, field) for one in utterances)
    return dict(Counter(value for value in values if value is not None))


def published_comparisons(corpus: Corpus) -> list[PublishedComparison]:
    """Hold the corpus against each count that is published."""
    return [PublishedComparison(one, _as_published(corpus, one)) for one in corpus.published]


def identical_clips(
    utterances: Iterable[Utterance], hashes: Mapping[str, str]
) -> list[list[Utterance]]:
    """Return the groups of utterances whose clips are the same bytes under different labels.

    ``hashes`` are those of the clips by utterance id, as far as they are known.
    """
    groups: defaultdict[str, list[Utterance]] = defaultdict(list)
    for one in utterances:
        if one.id in hashes:
            groups[hashes[one.id]].append(one)
    return [group for group in groups.values() if len({one.label for one in group}) > 1]


def _as_published(corpus: Corpus, published: Published) -> dict[str, int]:
    utterances = corpus.utterances
    if published.classes is not None:
        chosen = corpus.in_classes(published.classes)
        utterances = [one for one in chosen.utterances if one.label is not None]
    return by_field(utterances, published.by)
