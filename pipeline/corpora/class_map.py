"""A map of labels to classes that several corpora have in common.

    angry = ["angry", "anger", "ang"]           # class = its labels, in any corpus
    happy = ["happy", "joy", "hap", "exc"]

    [meld]                                      # only for the corpus meld, instead of the above
    angry = ["anger", "disgust"]

Small and capital letters in labels do not matter. A label in no class is left out. The classes are
those at the top, in their order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UsageError, unknown
from ..validation import read_toml
from .utterance import Corpus

COMMON_FOUR: Mapping[str, Sequence[str]] = {
    "angry": ["angry", "anger", "ang"],
    "happy": ["happy", "happiness", "joy", "hap", "excited", "excitement", "exc"],
    "sad": ["sad", "sadness"],
    "neutral": ["neutral", "neu", "neutrality"],
}
"""The map by default: the four emotions that most corpora have, with excited in happy."""


@dataclass(frozen=True)
class ClassMap:
    """Class → labels for every corpus (``general``), and for single corpora by name."""

    general: Mapping[str, Sequence[str]]
    of_corpus: Mapping[str, Mapping[str, Sequence[str]]]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in their order."""
        return tuple(self.general)

    def applied(self, corpus: Corpus, name: str) -> Corpus:
        """Return a corpus, called ``name`` in the cache, with these classes as labels.

        An utterance whose label is in no class gets the label ``None``.
        """
        class_of = {
            label.casefold(): of_label
            for of_label, labels in self.of_corpus.get(name, self.general).items()
            for label in labels
        }
        labels = {utterance.label for utterance in corpus.utterances if utterance.label is not None}
        labels |= {label for utterance in corpus.utterances for label in utterance.votes}
        merged = {
            label: class_of[label.casefold()] for label in labels if label.casefold() in class_of
        }
        in_classes = replace(corpus, class_sets={"common": merged}).in_classes("common")
        return replace(in_classes, classes=self.classes)

    def as_toml(self) -> dict[str, Any]:
        """Return the content of its file."""
        lists = {name: list(labels) for name, labels in self.general.items()}
        tables = {
            corpus: {name: list(labels) for name, labels in of.items()}
            for corpus, of in self.of_corpus.items()
        }
        return lists | tables


def class_map(content: Mapping[str, Any] | None, where: str = "the class map") -> ClassMap:
    """Return the map with the content of a TOML file; by default the four common classes.

    Raises:
        UsageError: the content is not such a map, or a label is in two classes.
    """
    content = COMMON_FOUR if content is None else content
    general = {name: value for name, value in content.items() if not isinstance(value, Mapping)}
    of_corpus = {name: value for name, value in content.items() if isinstance(value, Mapping)}
    for table, place in ((general, where), *((of_corpus[n], f"{where}, [{n}]") for n in of_corpus)):
        seen: dict[str, str] = {}
        for name, labels in table.items():
            if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
                raise UsageError(f'{place}: {name} = {labels!r}: give a list such as ["anger"]')
            if name not in general:
                raise unknown(f"class in {place}", name, general)
            for label in labels:
                other = seen.setdefault(label.casefold(), name)
                if other != name:
                    raise UsageError(
                        f"{place}: the label '{label}' is in {other} and in {name}: remove one"
                    )
    if len(general) < 2:
        raise UsageError(
            f'{where} has {len(general)} classes: give two or more, such as angry = ["anger"]'
        )
    return ClassMap(general, of_corpus)


def read_class_map(path: Path) -> dict[str, Any]:
    """Return the content of a file of a class map, checked.

    Raises:
        UsageError: it cannot be read, or is not such a map.
    """
    content = read_toml(path.expanduser(), "class map")
    class_map(content, str(path))
    return content
