"""Divide a corpus into shards."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...cache import EntryWriter, digest
from ..corpora.utterance import Footage
from ..encoders import EncoderSettings

_SHARDS_OF_A_SMALL_CORPUS = 16
_SMALL_SHARD = 2**21


@dataclass(frozen=True)
class PlannedUtterance:
    """One utterance to encode."""

    id: str
    """The utterance's id in the corpus."""
    source: Path | str | Footage
    """The path of its clip, its text, or the part of a video that shows it."""
    content_hash: str
    """SHA-256 of the clip or the text."""
    frames: int
    """How many frames its features will have."""
    seconds: float = 0.0
    """Length of the clip; 0 for a text."""

    @property
    def path(self) -> Path | None:
        """The file that a worker must see; ``None`` for a text."""
        source = self.source
        if isinstance(source, str):
            return None
        return source if isinstance(source, Path) else source.path


@dataclass(frozen=True)
class ShardJob:
    """The unit of work: one shard, from files to committed features; it is small to send."""

    number: int
    """Number of the shard in its entry."""
    lease: str
    """Name of the lease: the same in all processes that divide the corpus in the same way, even if
    they have other utterances left to do."""
    encoder: EncoderSettings
    """The encoder to load."""
    writer: EntryWriter
    """Writes the shard into the cache."""
    items: tuple[PlannedUtterance, ...]
    """The utterances that are still to be encoded."""
    calibration: tuple[PlannedUtterance, ...] = ()
    """The utterances that calibrate the entry, if it is ``int8`` and has no scale yet."""

    def halves(self) -> "list[ShardJob]":
        """Split the job in two; return no jobs if it has only one utterance.

        The halves do not encode the calibration, which may be what killed the worker.
        """
        middle = len(self.items) // 2
        if not middle:
            return []
        parts = self.items[:middle], self.items[middle:]
        return [replace(self, items=part, calibration=()) for part in parts]


def plan_shards(
    items: Sequence[PlannedUtterance],
    pending: Collection[str],
    encoder: EncoderSettings,
    writer: EntryWriter,
    shard_bytes: int,
    input_bytes: int = 0,
    calibration: Sequence[PlannedUtterance] = (),
) -> list[ShardJob]:
    """Divide a corpus into shards, and return a job for each shard with pending utterances.

    Utterances of similar length share a shard, because utterances of equal length share a forward
    pass. The whole corpus is divided, not only the pending utterances: a run that continues after a
    kill then encodes the same utterances together as a run that was not killed, with the same bits.

    Args:
        items: all utterances of the corpus.
        pending: ids of the utterances that are still to be encoded.
        encoder: the encoder to load.
        writer: writes the shards into the cache.
        shard_bytes: the largest size of a shard; a larger utterance has a shard of its own, and the
            shards of a small corpus are smaller, so that several workers have work.
        input_bytes: the size of the input of a frame. If it is larger than the frame, it counts: a
            worker holds the input of a whole shard.
        calibration: the utterances that calibrate the entry.

    Returns:
        Jobs with their pending utterances only, the longest utterances first.
    """
    per_frame = max(writer.spec.read_bytes_per_frame, input_bytes)
    total = sum(item.frames for item in items) * per_frame
    shard_bytes = min(shard_bytes, max(total // _SHARDS_OF_A_SMALL_CORPUS, _SMALL_SHARD))
    shards: list[list[PlannedUtterance]] = []
    room = 0
    for item in sorted(items, key=lambda item: (item.frames, item.id)):
        size = item.frames * per_frame
        if not shards or (size > room and shards[-1]):
            shards.append([])
            room = shard_bytes
        shards[-1].append(item)
        room -= size
    jobs = [
        ShardJob(
            number,
            f"{number:05}-{digest([item.id for item in shard])}",
            encoder,
            writer,
            tuple(item for item in shard if item.id in pending),
            tuple(calibration),
        )
        for number, shard in enumerate(shards)
    ]
    # The longest first, so that no worker still has a large shard when the others are done.
    return [job for job in reversed(jobs) if job.items]
