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
    """The rows of the tested corpora by utterance id, as in ``predictions.csv``."""

    rows: Mapping[str, Mapping[str, Any]]

    def text(self, id: str) -> str:
        """Return what is said in an utterance; empty if the corpus does not know."""
        return str(self.rows.get(id, {}).get("text") or "")

    def clip(self, id: str) -> tuple[str | None, str]:
        """Return the clip of an utterance as a data URL, or ``None`` and the reason."""
        audio = self.rows.get(id, {}).get("audio")
        if not audio:
            return None, "no clip"
        path = Path(audio)
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
    """Return the tested corpora of a run from its cache; ``None`` if the cache is not here."""
    across = config.get("test_on")
    rows: dict[str, Mapping[str, Any]] = {}
    try:
        features = FeatureCache(cache_of_run(run, config))
        modality, encoder = next(iter(config["encoders"].items()))
        for name in across or [config["dataset"]]:
            entry = features.open(name, str(encoder["key"]), modality=modality)
            roots = [r["root"] for r in entry.provenance if isinstance(r.get("root"), str)]
            for row in features.read_manifest(name, entry.manifest).to_pylist():
                audio = row["audio"] and str(Path(*roots[-1:], row["audio"]))
                id = f"{name}/{row['id']}" if across else row["id"]
                rows[id] = {**row, "audio": audio}
    except (CacheError, PipelineError, OSError, KeyError, TypeError):
        return None
    return CorpusRows(rows)


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
    known = {name: None for row in corpus.rows.values() for name in row}
    if column not in known:
        raise unknown("column of the corpus", column, [name for name in known if name != "id"])
    values = [corpus.rows.get(row.id, {}).get(column) for row in rows]
    return [None if value is None else str(value) for value in values]
