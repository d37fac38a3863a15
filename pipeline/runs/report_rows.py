"""The test predictions of a run for its report, with what the cache knows of the utterances."""

import base64
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache import CacheError
from ..corpora.tables import read_table
from ..errors import PipelineError, UsageError, unknown
from ..feature_cache import FeatureCache
from ..train.run_folder import cache_of_run

_LARGEST = 2**20  # bytes of a clip in the page


@dataclass(frozen=True)
class TestRow:
    """One prediction: an utterance in a fold with a seed."""

    id: str
    label: str
    predicted: str
    probabilities: Mapping[str, float]
    groups: Mapping[str, str]


@dataclass(frozen=True)
class CorpusRows:
    """The rows of the corpus by utterance id, and the folder of its clips."""

    rows: Mapping[str, Mapping[str, Any]]
    root: Path | None

    def text(self, id: str) -> str:
        """Return what is said in an utterance; empty if the corpus does not know."""
        return str(self.rows.get(id, {}).get("text") or "")

    def clip(self, id: str) -> tuple[str | None, str]:
        """Return the clip of an utterance as a data URL, or ``None`` and the reason."""
        audio = self.rows.get(id, {}).get("audio")
        if not audio:
            return None, "no clip"
        path = Path(audio) if self.root is None else self.root / audio
        try:
            if path.stat().st_size > _LARGEST:
                return None, "the clip is larger than 1 MiB"
            content = base64.b64encode(path.read_bytes()).decode()
        except OSError:
            return None, "the clip is not here"
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return f"data:{kind};base64,{content}", ""


def read_rows(run: Path, classes: Sequence[str]) -> list[TestRow]:
    """Return the test predictions of a run; none if it predicts no probabilities of its classes.

    An utterance without a label, because two classes have the most votes, is left out.

    Raises:
        PipelineError: ``predictions.csv`` is damaged.
    """
    rows = []
    path = run / "predictions.csv"
    try:
        for _, cells in read_table(path):
            if any(f"p_{name}" not in cells for name in classes) or "label" not in cells:
                return []
            if cells["label"] not in classes:
                continue
            probabilities = {name: float(cells[f"p_{name}"]) for name in classes}
            groups = {c: cells[c] for c in ("speaker", "session") if cells.get(c)}
            row = TestRow(cells["id"], cells["label"], cells["predicted"], probabilities, groups)
            rows.append(row)
    except (KeyError, TypeError, ValueError) as error:
        raise PipelineError(
            f"'{path}' is damaged ({error!r}): train the run again, with another --out"
        ) from error
    return rows


def read_corpus(run: Path, config: Mapping[str, Any]) -> CorpusRows | None:
    """Return the corpus of a run from its cache; ``None`` if the cache is not here."""
    try:
        features = FeatureCache(cache_of_run(run, config))
        modality, encoder = next(iter(config["encoders"].items()))
        entry = features.open(config["dataset"], str(encoder["key"]), modality=modality)
        table = features.read_manifest(config["dataset"], entry.manifest)
    except (CacheError, PipelineError, OSError, KeyError, TypeError):
        return None
    roots = [record["root"] for record in entry.provenance if isinstance(record.get("root"), str)]
    rows = {row["id"]: row for row in table.to_pylist()}
    return CorpusRows(rows, Path(roots[-1]) if roots else None)


def values_of(rows: Sequence[TestRow], column: str, corpus: CorpusRows | None) -> list[str | None]:
    """Return the value of a column for each prediction; ``None`` where there is none.

    Raises:
        UsageError: neither the predictions nor the corpus have the column.
    """
    if column in ("speaker", "session"):
        return [row.groups.get(column) for row in rows]
    if corpus is None:
        raise UsageError(
            f"--by {column}: the cache of the run is not here, and only it has the column: leave "
            "out --by, or put the cache back"
        )
    known = next(iter(corpus.rows.values()), {})
    if column not in known:
        raise unknown("column of the corpus", column, [name for name in known if name != "id"])
    values = [corpus.rows.get(row.id, {}).get(column) for row in rows]
    return [None if value is None else str(value) for value in values]
