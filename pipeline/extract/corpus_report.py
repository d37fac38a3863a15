"""The content of a corpus, as text and as JSON, before anything is extracted."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..corpora import Corpus, Utterance
from ..corpora.counts import (
    PublishedComparison,
    by_class_set,
    by_field,
    by_label,
    published_comparisons,
)

_LISTED = 12  # with more sessions or speakers only their number is printed
_IDENTICAL = 6  # identical clips that are named in one line
_FIELDS = ("split", "session", "speaker")


@dataclass(frozen=True)
class CorpusReport:
    """The counts of a corpus, and its identical clips."""

    corpus: Corpus
    """The corpus."""
    identical: list[list[Utterance]]
    """Groups of utterances whose clips are identical and whose labels differ."""

    def as_json(self) -> dict[str, Any]:
        """Return all counts as JSON values; fields that the corpus does not have are left out."""
        fields = {name: by_field(self.corpus.utterances, name) for name in _FIELDS}
        return {
            "counts": {
                "label": by_label(self.corpus),
                "classes": by_class_set(self.corpus),
                **{name: counts for name, counts in fields.items() if counts},
            },
            "published": [
                _as_json(comparison) for comparison in published_comparisons(self.corpus)
            ],
            "identical_clips": [
                [{"id": utterance.id, "label": utterance.label} for utterance in group]
                for group in self.identical
            ],
        }

    def lines(self) -> Iterator[str]:
        """Yield the counts as lines of text, then the published counts beside the counts here."""
        total = len(self.corpus.utterances)
        labels = by_label(self.corpus)
        yield f"  by label: {_listed(labels)}{_rest('no label', total, labels)}"
        for name, classes in by_class_set(self.corpus).items():
            rest = _rest("in none of them", total, classes)
            yield f"  by {name} classes: {_listed(classes)}{rest}"
        for name in _FIELDS:
            counts = by_field(self.corpus.utterances, name)
            if len(counts) > _LISTED:
                fewest, most = min(counts.values()), max(counts.values())
                each = f"{fewest} to {most}" if fewest < most else f"{most}"
                line = f"{len(counts)} {name}s, {each} utterances each"
            else:
                line = _listed(counts)
            if counts:
                yield f"  by {name}: {line}{_rest('unknown', total, counts)}"
        for comparison in published_comparisons(self.corpus):
            yield from _table(comparison)

    def identical_lines(self) -> list[str]:
        """Return a line for each group of identical clips whose labels differ."""
        lines = []
        for group in self.identical:
            named = [f"{item.id} ({item.label or 'no label'})" for item in group[:_IDENTICAL]]
            more = f" and {len(group) - _IDENTICAL} more" if len(group) > _IDENTICAL else ""
            lines.append(" = ".join(named) + more)
        return lines


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{value} {count}" for value, count in counts.items())


def _rest(word: str, total: int, counts: Mapping[str, int]) -> str:
    rest = total - sum(counts.values())
    return f"{', ' if counts else ''}{word} {rest}" if rest else ""


def _table(comparison: PublishedComparison) -> Iterator[str]:
    published = comparison.published
    classes = f" in {published.classes} classes" if published.classes else ""
    yield f"  published by {published.by}{classes} ({published.source}), and here:"
    widest = max(len(value) for value, _, _ in comparison.rows)
    for value, theirs, ours in comparison.rows:
        mark = "  differs" if theirs != ours else ""
        yield f"    {value:<{widest}}  {theirs:>6}  {ours:>6}{mark}"


def _as_json(comparison: PublishedComparison) -> dict[str, Any]:
    return {
        "source": comparison.published.source,
        "by": comparison.published.by,
        "classes": comparison.published.classes,
        "published": dict(comparison.published.counts),
        "here": dict(comparison.here),
        "differs": comparison.differs,
    }
