"""What an extraction did, in words and as JSON."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...cache import Quarantined
from ..corpora import Corpus, Utterance
from .corpus_report import CorpusReport

_EXAMPLES = 10  # of what was left out for one reason


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
    """What an extraction found and did.

    ``asked`` utterances of the corpus were to be extracted, and ``hours`` is how long their clips
    last, if speech was asked for. ``identical`` are groups of them that are the same clip under
    different labels.
    """

    corpus: Corpus
    root: Path
    cache: str
    dry_run: bool
    asked: int
    hours: float | None
    identical: list[list[Utterance]]
    modalities: list[ModalitySummary]
    seconds: float = 0.0

    @property
    def bytes(self) -> int:
        """What all new or pending features take on the disk."""
        return sum(one.bytes for one in self.modalities)

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
            "ignored": [{"path": str(path), "reason": why} for path, why in self.corpus.ignored],
            "seconds": round(self.seconds, 3),
            "modalities": [
                {**asdict(one), "reasons": Counter(bad.reason for bad in one.quarantined)}
                for one in self.modalities
            ],
        }

    def __str__(self) -> str:
        """Return the summary as a person wants to read it."""
        return "\n".join([*self._found(), *self._done(), *self._left_out()])

    def _found(self) -> list[str]:
        utterances = self.corpus.utterances
        what = f"{self.corpus.name}: {len(utterances)} utterances below {self.root}"
        if self.asked < len(utterances):
            what += f", of which {self.asked} are asked for"
        if self.hours is not None:
            what += f", {_duration(self.hours)} of audio"
        notes = [f"  note: {note}" for note in self.corpus.notes]
        if self.dry_run:
            return [what, *notes, *CorpusReport(self.corpus, self.identical).lines()]
        parts = Counter(one.split or one.session for one in utterances)
        if set(parts) != {None}:
            listed = (f"{name or 'neither'} {count}" for name, count in parts.items())
            what += f" ({', '.join(listed)})"
        return [what, *notes]

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
        lines = []
        for one in self.modalities:
            lines += _grouped(
                f"{one.modality} in quarantine, with the reason",
                ((bad.reason, f"{bad.id}: {bad.detail}") for bad in one.quarantined),
                "--json lists them" if self.dry_run else f"see {one.entry}/quarantine.jsonl",
            )
        lines += _grouped(
            "long, encoded in overlapping windows without losing a frame",
            (("", f"{id} {what}") for one in self.modalities for id, what in one.long),
        )
        lines += _grouped(
            "identical clips under different labels",
            (("", line) for line in CorpusReport(self.corpus, self.identical).identical_lines()),
        )
        lines += _grouped(
            "among the clips, but no utterance's",
            ((why, str(path)) for path, why in self.corpus.ignored),
        )
        if self.dry_run:
            lines += [
                f"this was a dry run: nothing is written, and {self.bytes / 1e6:.1f} MB would be",
                "clips were opened and not decoded: silence and damage are found by the run itself",
            ]
        return lines


def _grouped(
    title: str, rows: Iterable[tuple[str, str]], where: str = "--json lists them"
) -> list[str]:
    """Return what there is by its reason, the first ones of each; ``where`` says where to look."""
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
            lines.append(f"{indent}and {len(group) - _EXAMPLES} more: {where}")
    return lines


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
