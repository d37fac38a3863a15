"""The summary of an extraction, as text and as JSON."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...cache import Quarantined
from ..corpora import Corpus, Utterance
from ..progress import duration, times
from .corpus_report import CorpusReport
from .sizes import CacheSize, size_lines

_EXAMPLES = 10  # printed for each reason


@dataclass
class ModalitySummary:
    """The utterances of one modality, counted by their result."""

    modality: str
    """Such as ``speech``."""
    encoder: str
    """Name of the encoder."""
    entry: str
    """Folder or URL of the cache entry."""
    layers: tuple[int, ...]
    """Encoder layers in the entry."""
    dim: int
    """Width of the hidden states."""
    dtype: str
    """Of the stored features."""
    present: int = 0
    """Utterances that were in the cache before."""
    new: int = 0
    """Utterances that this run has extracted."""
    elsewhere: int = 0
    """Utterances that another run has extracted at the same time."""
    audio: float = 0.0
    """Length of the clips that this run has extracted, in seconds."""
    pending: int = 0
    """Utterances that are still to be extracted, in a dry run."""
    gone: int = 0
    """Utterances in the cache that are no longer in the corpus."""
    bytes: int = 0
    """Size on the disk of the features of the new or pending utterances."""
    sizes: list[CacheSize] = field(default_factory=list)
    """Size on the disk of the features of all chosen utterances, for each dtype and each choice of
    frames."""
    quarantined: list[Quarantined] = field(default_factory=list)
    """Utterances that failed, each with its reason."""
    remarks: list[tuple[str, str]] = field(default_factory=list)
    """Ids of utterances of this run, each with what a user should know, such as that no face was
    found."""
    long: list[tuple[str, str]] = field(default_factory=list)
    """Ids of utterances that are encoded in windows, each with a description."""

    @property
    def total(self) -> int:
        """How many utterances were to be in the entry."""
        done = self.present + self.new + self.elsewhere
        return done + self.pending + len(self.quarantined)

    def lines(self, dry_run: bool) -> list[str]:
        """Return the counts as lines of text."""
        layers = ",".join(map(str, self.layers))
        size = f"{self.bytes / 1e6:.1f} MB"
        if dry_run:
            state = f"{self.present} are in the cache, {self.pending} would be extracted ({size})"
        else:
            state = f"{self.present + self.new + self.elsewhere} are in the cache: "
            state += f"{self.new} new ({size})" if self.new else "nothing new"
            state += f", {self.elsewhere} by another run meanwhile" if self.elsewhere else ""
            state += f", {self.present} were there before" if self.present else ""
        lines = [
            f"{self.modality}: {self.encoder}, layers {layers} of width {self.dim}, {self.dtype}",
            f"  of {self.total} utterances, {state}, {len(self.quarantined)} in quarantine",
            f"  {self.entry}",
        ]
        if dry_run:
            lines += size_lines(self.sizes)
        if self.gone:
            lines.append(
                f"  {self.gone} more are in the cache and no longer in the corpus: "
                "'mser cache gc' deletes them"
            )
        return lines


@dataclass
class Summary:
    """The corpus of an extraction, and the result for each modality."""

    corpus: Corpus
    """The corpus."""
    root: Path
    """Folder to which the paths of its clips are relative."""
    cache: str
    """Folder or URL of the cache."""
    dry_run: bool
    """Whether nothing was written."""
    asked: int
    """Number of utterances that were to be extracted."""
    hours: float | None
    """Length of their clips; ``None`` without speech."""
    identical: list[list[Utterance]]
    """Groups of utterances whose clips are identical and whose labels differ."""
    modalities: list[ModalitySummary]
    """The result for each modality."""
    seconds: float = 0.0
    """Time that the extraction took."""

    @property
    def bytes(self) -> int:
        """Size on the disk of all new or pending features."""
        return sum(modality.bytes for modality in self.modalities)

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        return {
            "dataset": self.corpus.name,
            "root": str(self.root),
            "cache": self.cache,
            "dry_run": self.dry_run,
            "utterances": len(self.corpus.utterances),
            "asked": self.asked,
            "hours": self.hours,
            "notes": list(self.corpus.notes),
            **CorpusReport(self.corpus, self.identical).as_json(),
            "bytes": self.bytes,
            "ignored": [
                {"path": str(path), "reason": reason} for path, reason in self.corpus.ignored
            ],
            "seconds": round(self.seconds, 3),
            "modalities": [
                {**asdict(modality), "reasons": Counter(bad.reason for bad in modality.quarantined)}
                for modality in self.modalities
            ],
        }

    def __str__(self) -> str:
        """Return the summary as text."""
        return "\n".join([*self._corpus_lines(), *self._modality_lines(), *self._left_out_lines()])

    def _corpus_lines(self) -> list[str]:
        utterances = self.corpus.utterances
        first = f"{self.corpus.name}: {len(utterances)} utterances below {self.root}"
        if self.asked < len(utterances):
            first += f", of which {self.asked} are selected"
        if self.hours is not None:
            first += f", {_duration(self.hours)} of audio"
        notes = [f"  note: {note}" for note in self.corpus.notes]
        if self.dry_run:
            return [first, *notes, *CorpusReport(self.corpus, self.identical).lines()]
        parts = Counter(utterance.split or utterance.session for utterance in utterances)
        if set(parts) != {None}:
            listed = (f"{name or 'neither'} {count}" for name, count in parts.items())
            first += f" ({', '.join(listed)})"
        return [first, *notes]

    def _modality_lines(self) -> list[str]:
        lines = [line for modality in self.modalities for line in modality.lines(self.dry_run)]
        if self.dry_run:
            return lines
        audio = max(modality.audio for modality in self.modalities)  # all read the same clips
        done = f"done in {duration(self.seconds)}"
        if audio and self.seconds:
            speed = times(audio / self.seconds)
            done += f": {_duration(audio / 3600)} of audio, {speed} times real time"
        return [*lines, done]

    def _left_out_lines(self) -> list[str]:
        lines = []
        for modality in self.modalities:
            lines += _grouped(
                f"{modality.modality} in quarantine, with the reason",
                ((bad.reason, f"{bad.id}: {bad.detail}") for bad in modality.quarantined),
                "--json lists them" if self.dry_run else f"see {modality.entry}/quarantine.jsonl",
            )
        lines += _grouped(
            "extracted, with a remark",
            ((text, id) for modality in self.modalities for id, text in modality.remarks),
        )
        lines += _grouped(
            "long, encoded in overlapping windows without losing a frame",
            (
                ("", f"{id} {windows}")
                for modality in self.modalities
                for id, windows in modality.long
            ),
        )
        lines += _grouped(
            "identical clips under different labels",
            (("", line) for line in CorpusReport(self.corpus, self.identical).identical_lines()),
        )
        lines += _grouped(
            "files among the clips that belong to no utterance",
            ((reason, str(path)) for path, reason in self.corpus.ignored),
        )
        if self.dry_run:
            lines += [
                f"this was a dry run: nothing was written; a run writes {self.bytes / 1e6:.1f} MB",
                "clips were opened and not decoded: only a run finds silent and damaged clips",
            ]
        return lines


def _grouped(
    title: str, rows: Iterable[tuple[str, str]], rest: str = "--json lists them"
) -> list[str]:
    """Return the first (reason, text) rows of each reason, and where the ``rest`` can be found."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for reason, row in rows:
        groups[reason].append(row)
    if not groups:
        return []
    lines = [f"{title} ({sum(map(len, groups.values()))}):"]
    for reason, group in groups.items():
        indent = "  "
        if reason:
            lines.append(f"  {reason} ({len(group)}):")
            indent = "    "
        lines += [indent + row for row in group[:_EXAMPLES]]
        if len(group) > _EXAMPLES:
            lines.append(f"{indent}and {len(group) - _EXAMPLES} more: {rest}")
    return lines


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
