"""What an extraction did, in words and as JSON."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...cache import Quarantined
from ..corpora import Corpus


@dataclass
class ModalitySummary:
    """What became of one modality's utterances.

    ``present`` were in the cache before, ``new`` were extracted now, ``elsewhere`` by another run
    at the same time, ``pending`` are still to be done (in a dry run); ``gone`` are in the cache and
    no longer in the corpus; ``bytes`` is what the new or pending ones take on the disk.
    """

    modality: str
    encoder: str
    entry: str
    layers: tuple[int, ...]
    dim: int
    dtype: str
    present: int = 0
    new: int = 0
    elsewhere: int = 0
    pending: int = 0
    gone: int = 0
    bytes: int = 0
    quarantined: list[Quarantined] = field(default_factory=list)
    long: list[tuple[str, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many utterances the modality was asked for."""
        done = self.present + self.new + self.elsewhere
        return done + self.pending + len(self.quarantined)


@dataclass
class Summary:
    """What an extraction found and did."""

    corpus: Corpus
    root: Path
    cache: str
    dry_run: bool
    hours: float | None
    modalities: list[ModalitySummary]
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        return {
            "dataset": self.corpus.name,
            "root": str(self.root),
            "cache": self.cache,
            "dry_run": self.dry_run,
            "utterances": len(self.corpus.utterances),
            "hours": self.hours,
            "ignored": [{"path": str(path), "reason": why} for path, why in self.corpus.ignored],
            "seconds": round(self.seconds, 3),
            "modalities": [asdict(one) for one in self.modalities],
        }

    def __str__(self) -> str:
        """Return the summary as a person wants to read it."""
        return "\n".join([*self._found(), *self._done(), *self._left_out()])

    def _found(self) -> list[str]:
        utterances = self.corpus.utterances
        parts = Counter(one.split or one.session or "all" for one in utterances)
        hours = "" if self.hours is None else f", {_duration(self.hours)} of audio"
        return [
            f"{self.corpus.name}: {len(utterances)} utterances below {self.root}{hours} "
            f"({', '.join(f'{name} {count}' for name, count in parts.items())})",
            *(f"  note: {note}" for note in self.corpus.notes),
        ]

    def _done(self) -> list[str]:
        lines = []
        for one in self.modalities:
            layers = ",".join(map(str, one.layers))
            size = f"{one.bytes / 1e6:.1f} MB"
            if self.dry_run:
                state = f"{one.present} are in the cache, {one.pending} would be extracted ({size})"
            else:
                state = f"{one.present + one.new + one.elsewhere} are in the cache: "
                state += f"{one.new} new ({size})" if one.new else "nothing new"
                state += f", {one.elsewhere} by another run meanwhile" if one.elsewhere else ""
                state += f", {one.present} were there before" if one.present else ""
            lines += [
                f"{one.modality}: {one.encoder}, layers {layers} of width {one.dim}, {one.dtype}",
                f"  of {one.total} utterances, {state}, {len(one.quarantined)} in quarantine",
                f"  {one.entry}",
            ]
            if one.gone:
                lines.append(
                    f"  {one.gone} more are in the cache and no longer in the corpus: "
                    "'mser cache gc' drops them"
                )
        if not self.dry_run:
            lines.append(f"done in {self.seconds:.0f} s")
        return lines

    def _left_out(self) -> list[str]:
        bad = [(m.modality, q) for m in self.modalities for q in m.quarantined]
        long = [row for m in self.modalities for row in m.long]
        lines = []
        if bad:
            lines.append(f"in quarantine, with the reason ({len(bad)}):")
            lines += [f"  {q.id} [{m}] {q.reason}: {q.detail}" for m, q in bad]
        if long:
            lines.append(
                f"long, encoded in overlapping windows without losing a frame ({len(long)}):"
            )
            lines += [f"  {id} {what}" for id, what in long]
        if self.corpus.ignored:
            lines.append(f"among the clips, but no utterance's ({len(self.corpus.ignored)}):")
            lines += [f"  {path}: {why}" for path, why in self.corpus.ignored]
        return lines


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
