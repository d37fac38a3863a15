"""Which utterances go into which shard."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...cache import EntryWriter, digest
from ..encoders import EncoderSettings

_SHARDS_OF_A_SMALL_CORPUS = 16
_SMALL_SHARD = 2**21


@dataclass(frozen=True)
class PlannedUtterance:
    """One utterance to encode: its clip's path, or its text; ``seconds`` of audio, if any."""

    id: str
    source: Path | str
    content_hash: str
    frames: int
    seconds: float = 0.0


@dataclass(frozen=True)
class ShardJob:
    """The unit of work: one shard, from files to committed features. Small enough to send.

    ``lease`` names the work: all processes that divide a corpus alike call it the same, whatever
    each has still to do of it.
    """

    number: int
    lease: str
    encoder: EncoderSettings
    writer: EntryWriter
    items: tuple[PlannedUtterance, ...]

    def halves(self) -> "list[ShardJob]":
        """Split the job in two, or return nothing if it is of one utterance."""
        middle = len(self.items) // 2
        if not middle:
            return []
        return [replace(self, items=part) for part in (self.items[:middle], self.items[middle:])]


def plan(
    items: Sequence[PlannedUtterance],
    pending: Collection[str],
    encoder: EncoderSettings,
    writer: EntryWriter,
    shard_bytes: int,
) -> list[ShardJob]:
    """Divide a corpus into shards of ``shard_bytes`` at most, and keep of each what is ``pending``.

    An utterance larger than a shard has one of its own. Shards of a small corpus are smaller, so
    that there is work for several workers.

    Utterances of like length lie together: those of equal length share a forward pass. The whole
    corpus is divided, not what is pending, so that a run that was killed and goes on encodes the
    same utterances together as one that was not, and comes to the same bits.
    """
    per_frame = writer.spec.bytes_per_frame
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
        )
        for number, shard in enumerate(shards)
    ]
    # The longest first, so that no worker is left with a large shard at the end.
    return [job for job in reversed(jobs) if job.items]
