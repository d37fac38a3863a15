"""A corpus as columns, for notebooks."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..errors import UsageError, unknown
from .utterance import Corpus, Utterance

_FIELDS = tuple(Utterance.__dataclass_fields__)


@dataclass(frozen=True, repr=False)
class CorpusTable:
    """The utterances of a corpus in the cache: a column is an attribute, such as ``meld.label``.

    The columns are ``id``, ``audio`` (the path of the clip), ``text``, ``label``, ``speaker``,
    ``session``, ``dialogue``, ``turn``, ``split``, ``audio_sha256``, ``duration`` (in seconds), and
    those of the user's own manifest. If videos were extracted, there are also ``video``,
    ``video_start``, ``video_end``, ``video_side`` and ``video_sha256``. Each is a list with one
    value for each utterance, in the order of the corpus; ``None`` is a value that is not known.

    Attributes:
        name: the name of the corpus.
        classes: its classes, in its own order.
        columns: name → values.
    """

    name: str
    classes: tuple[str, ...]
    columns: Mapping[str, list[Any]]

    def __getattr__(self, column: str) -> list[Any]:
        columns = self.__dict__.get("columns", {})  # empty while it is unpickled
        if column not in columns:
            raise AttributeError(f"the corpus has no column '{column}': {', '.join(columns)}")
        values: list[Any] = columns[column]
        return values

    def __len__(self) -> int:
        return len(self.columns["id"])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in zip(*self.columns.values(), strict=True):
            yield dict(zip(self.columns, row, strict=True))

    def __repr__(self) -> str:
        """Return the name, the number of utterances, the classes and the known columns."""
        known = [
            name for name, values in self.columns.items() if any(v is not None for v in values)
        ]
        return (
            f"<corpus {self.name}: {len(self)} utterances, classes {', '.join(self.classes)}; "
            f"columns {', '.join(known)}>"
        )

    def where(self, *, ids: Container[str] | None = None, **values: Any) -> "CorpusTable":
        """Return the utterances with these values, such as ``where(split="train")``.

        ``ids`` are those that may stay, such as the ``ids`` of an entry.

        Raises:
            UsageError: there is no such column.
        """
        for column in values:
            if column not in self.columns:
                raise unknown(f"column of {self.name}", column, self.columns)
        rows = [
            number
            for number in range(len(self))
            if (ids is None or self.columns["id"][number] in ids)
            and all(self.columns[column][number] == value for column, value in values.items())
        ]
        picked = {name: [column[row] for row in rows] for name, column in self.columns.items()}
        return CorpusTable(self.name, self.classes, picked)

    def to_arrow(self) -> Any:
        """Return the columns as a ``pyarrow.Table``."""
        return pa.table(dict(self.columns))

    def to_pandas(self) -> Any:
        """Return the columns as a ``pandas.DataFrame``.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas as pd  # noqa: PLC0415 -- not a dependency of mser
        except ImportError:
            raise UsageError("pandas is not installed: pip install pandas") from None
        return pd.DataFrame(dict(self.columns))


def corpus_table(corpus: Corpus, manifest: Any) -> CorpusTable:
    """Return the table of a corpus, with the labels of its classes.

    ``manifest`` is the manifest in the cache, whose rows are the utterances of the corpus.
    """
    columns = {name: manifest[name].to_pylist() for name in manifest.column_names}
    fields = [*corpus.utterances]
    columns["label"] = [utterance.label for utterance in fields]
    # A manifest has no columns of videos if the corpus has none.
    order = [name for name in _FIELDS if name in columns]
    order += [name for name in columns if name not in order]
    return CorpusTable(corpus.name, corpus.classes, {name: columns[name] for name in order})
