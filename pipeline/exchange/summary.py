"""The summaries of an import and an export, as text and as JSON."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...cache import Quarantined

_SHOWN = 3  # ids per list


@dataclass
class ImportSummary:
    """The result of an import."""

    dataset: str
    modality: str
    encoder: str
    source: Path
    entry: str
    layers: tuple[int, ...]
    dim: int
    dtype: str
    present: int = 0
    """Number of utterances that were in the cache before, unchanged."""
    new: int = 0
    """Number of utterances that were written."""
    bytes: int = 0
    """Size of the new features in bytes."""
    quarantined: list[Quarantined] = field(default_factory=list)
    """Utterances of the source whose features cannot be used."""
    missing: list[str] = field(default_factory=list)
    """Ids in the manifest that have no features."""
    unlisted: list[str] = field(default_factory=list)
    """Ids that have features in the cache but are not in the manifest."""
    notes: tuple[str, ...] = ()
    """The notes of the corpus."""
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        return {**asdict(self), "source": str(self.source), "seconds": round(self.seconds, 3)}

    def __str__(self) -> str:
        """Return the summary as text for the terminal."""
        total = self.present + self.new + len(self.quarantined)
        state = f"{self.new} new ({self.bytes / 1e6:.1f} MB)" if self.new else "nothing new"
        state += f", {self.present} unchanged" if self.present else ""
        lines = [
            f"{self.dataset}, {self.modality}: {self.encoder}, layers "
            f"{','.join(map(str, self.layers))} of width {self.dim}, {self.dtype}",
            *(f"  note: {note}" for note in self.notes),
            f"  of {total} utterances in {self.source}, {self.present + self.new} are in the "
            f"cache: {state}, {len(self.quarantined)} in quarantine",
            f"  {self.entry}",
        ]
        if self.missing:
            lines.append(f"in the manifest but without features ({_some(self.missing)})")
        if self.unlisted:
            lines.append(
                "in the cache but not in the manifest, so not used for training "
                f"({_some(self.unlisted)})"
            )
        if self.quarantined:
            lines.append(f"in quarantine ({len(self.quarantined)}), with the reasons:")
            lines += [f"  {bad.id!r} {bad.reason}: {bad.detail}" for bad in self.quarantined]
        lines.append(f"done in {self.seconds:.0f} s")
        return "\n".join(lines)


@dataclass
class ExportSummary:
    """The result of an export: ``bytes`` of features in ``files`` files in the folder ``to``."""

    dataset: str
    modality: str
    encoder: str
    layers: tuple[int, ...]
    dim: int
    dtype: str
    format: str
    to: Path
    utterances: int
    files: int
    bytes: int
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        return {**asdict(self), "to": str(self.to), "seconds": round(self.seconds, 3)}

    def __str__(self) -> str:
        """Return the summary as text for the terminal."""
        return "\n".join(
            [
                f"{self.dataset}, {self.modality}: {self.encoder}, layers "
                f"{','.join(map(str, self.layers))} of width {self.dim}, {self.dtype}",
                f"  {self.utterances} utterances as {self.format} ({self.bytes / 1e6:.1f} MB in "
                f"{self.files} files)",
                f"  {self.to}",
                f"done in {self.seconds:.0f} s",
            ]
        )


def _some(ids: list[str]) -> str:
    shown = ", ".join(map(repr, ids[:_SHOWN]))
    return f"{len(ids)}: {shown}{', …' if len(ids) > _SHOWN else ''}"
