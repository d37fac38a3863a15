"""What an import and an export did, in words and as JSON."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...cache import Quarantined

_SHOWN = 3  # ids, of those that lack something


@dataclass
class ImportSummary:
    """What an import found and did.

    ``present`` utterances were in the cache before, as they are; ``new`` ones were written,
    ``bytes`` in all. ``missing`` are in the manifest and have no features; ``unlisted`` have
    features in the cache and are not in the manifest.
    """

    dataset: str
    modality: str
    encoder: str
    source: Path
    entry: str
    layers: tuple[int, ...]
    dim: int
    dtype: str
    present: int = 0
    new: int = 0
    bytes: int = 0
    quarantined: list[Quarantined] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        return {**asdict(self), "source": str(self.source), "seconds": round(self.seconds, 3)}

    def __str__(self) -> str:
        """Return the summary as a person wants to read it."""
        total = self.present + self.new + len(self.quarantined)
        state = f"{self.new} new ({self.bytes / 1e6:.1f} MB)" if self.new else "nothing new"
        state += f", {self.present} were there before" if self.present else ""
        lines = [
            f"{self.dataset}, {self.modality}: {self.encoder}, layers "
            f"{','.join(map(str, self.layers))} of width {self.dim}, {self.dtype}",
            *(f"  note: {note}" for note in self.notes),
            f"  of {total} utterances in {self.source}, {self.present + self.new} are in the "
            f"cache: {state}, {len(self.quarantined)} in quarantine",
            f"  {self.entry}",
        ]
        if self.missing:
            lines.append(f"in the manifest, and without features ({_some(self.missing)})")
        if self.unlisted:
            lines.append(
                f"in the cache, and not in the manifest, so not trained on ({_some(self.unlisted)})"
            )
        if self.quarantined:
            lines.append(f"in quarantine, with the reason ({len(self.quarantined)}):")
            lines += [f"  {one.id!r} {one.reason}: {one.detail}" for one in self.quarantined]
        lines.append(f"done in {self.seconds:.0f} s")
        return "\n".join(lines)


@dataclass
class ExportSummary:
    """What an export wrote: ``bytes`` of features in ``files`` files below ``to``."""

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
        """Return the summary as a person wants to read it."""
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
