"""What a corpus was found to hold, in words and as JSON, before anything is extracted."""

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

_LISTED = 12  # sessions or speakers that are counted one by one
_TOGETHER = 6  # clips that are the same sound, named in one line
_FIELDS = ("split", "session", "speaker")


@dataclass(frozen=True)
class CorpusReport:
    """The counts of a corpus, and the groups of its clips that are one sound with two labels."""

    corpus: Corpus
    identical: list[list[Utterance]]

    def as_json(self) -> dict[str, Any]:
        """Return all counts as JSON values; of what the corpus does not give, there are none."""
        fields = {name: by_field(self.corpus.utterances, name) for name in _FIELDS}
        return {
            "counts": {
                "label": by_label(self.corpus),
                "classes": by_class_set(self.corpus),
                **{name: counts for name, counts in fields.items() if counts},
            },
            "published": [_comparison(one) for one in published_comparisons(self.corpus)],
            "identical_clips": [
                [{"id": one.id, "label": one.label} for one in group] for group in self.identical
            ],
        }

    def lines(self) -> Iterator[str]:
        """Yield the counts in words, and then what was published beside what is here."""
        total = len(self.corpus.utterances)
        labels = by_label(self.corpus)
        yield f"  by label: {_listed(labels)}{_rest('no label', total, labels)}"
        for name, classes in by_class_set(self.corpus).items():
            left = _rest("in none of them", total, classes)
            yield f"  by {name} classes: {_listed(classes)}{left}"
        for name in _FIELDS:
            counts = by_field(self.corpus.utterances, name)
            if len(counts) > _LISTED:
                fewest, most = min(counts.values()), max(counts.values())
                each = f"{fewest} to {most}" if fewest < most else f"{most}"
                said = f"{len(counts)} {name}s, {each} utterances each"
            else:
                said = _listed(counts)
            if counts:
                yield f"  by {name}: {said}{_rest('unknown', total, counts)}"
        for one in published_comparisons(self.corpus):
            yield from _table(one)

    def identical_lines(self) -> list[str]:
        """Return a line for each group of clips that are the same sound under different labels."""
        lines = []
        for group in self.identical:
            named = [f"{one.id} ({one.label or 'no label'})" for one in group[:_TOGETHER]]
            more = f" and {len(group) - _TOGETHER} more" if len(group) > _TOGETHER else ""
            lines.append(" = ".join(named) + more)
        return lines


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{value} {count}" for value, count in counts.items())


def _rest(word: str, total: int, counts: Mapping[str, int]) -> str:
    rest = total - sum(counts.values())
    return f"{',' if counts else ''} {word} {rest}" if rest else ""


def _what(one: PublishedComparison) -> str:
    within = f" in {one.published.classes} classes" if one.published.classes else ""
    return f"{one.published.by}{within}"


def _table(one: PublishedComparison) -> Iterator[str]:
    yield f"  published by {_what(one)} ({one.published.source}), and here:"
    widest = max(len(value) for value, _, _ in one.rows)
    for value, theirs, ours in one.rows:
        mark = "  differs" if theirs != ours else ""
        yield f"    {value:<{widest}}  {theirs:>6}  {ours:>6}{mark}"


def _comparison(one: PublishedComparison) -> dict[str, Any]:
    return {
        "source": one.published.source,
        "by": one.published.by,
        "classes": one.published.classes,
        "published": dict(one.published.counts),
        "here": dict(one.here),
        "differs": one.differs,
    }
