"""What a worker does: one shard, from files to committed features."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from ...cache import Quarantined, UtteranceFeatures
from ..compute.device import cores
from ..encoders import FAMILIES, Encoder, EncoderSettings
from .audio import BadClipError
from .readers import READERS
from .sharding import PlannedUtterance, ShardJob

_PATIENCE = 2.0  # seconds that a worker waits for another process before it does something else


@dataclass(frozen=True)
class ShardReport:
    """What became of a shard's utterances.

    ``stored`` are in the cache by this job, ``elsewhere`` by another process that was faster.
    ``busy`` says that another process is at it: nothing was done, and the job should come again.
    """

    job: ShardJob
    stored: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    busy: bool = False


_loading = Lock()


def load_once(settings: EncoderSettings) -> Encoder[Any]:
    """Return a worker's encoder, made when a job first requirements it; its threads share it."""
    with _loading:  # two threads that come at once would make two
        return _encoder(settings)


@lru_cache(maxsize=2)  # a run has at most one of each modality
def _encoder(settings: EncoderSettings) -> Encoder[Any]:
    return FAMILIES[settings.model_type](settings)


def extract_shard(job: ShardJob, patience: float = _PATIENCE) -> ShardReport:
    """Decode, encode and commit the utterances of one shard, unless another process does it."""
    with job.writer.lease(job.lease, patience) as mine:
        if not mine:
            return ShardReport(job, busy=True)
        # Another process may have done it since the work was planned.
        there = job.writer.committed(job.number)
        elsewhere = tuple(one.id for one in job.items if there.get(one.id) == one.content_hash)
        todo = [one for one in job.items if one.id not in set(elsewhere)]
        return replace(_extracted(job, todo), elsewhere=elsewhere)


def _extracted(job: ShardJob, items: Sequence[PlannedUtterance]) -> ShardReport:
    encoder = load_once(job.encoder)
    # Loaded here, where a failure ends the run; what follows fails utterance by utterance.
    _ = encoder.model
    quarantined: list[Quarantined] = []
    readable: list[tuple[PlannedUtterance, Any]] = []
    for item, raw in _read_all(items, encoder):
        if isinstance(raw, BadClipError):
            quarantined.append(_failed(item, raw))
        else:
            readable.append((item, raw))
    features: list[UtteranceFeatures] = []
    dtype = job.writer.spec.dtype
    for item, hidden_states in _encode(encoder, readable, dtype, quarantined):
        if np.isfinite(hidden_states).all():
            features.append(UtteranceFeatures(item.id, item.content_hash, hidden_states))
        else:
            detail = "the encoder gives it features that are not numbers"
            if dtype == "float16" and not np.isnan(hidden_states).any():
                detail = "its features do not fit float16: extract with --dtype float32"
            quarantined.append(_failed(item, BadClipError("not-finite", detail)))
    if features:
        job.writer.write_shard(job.number, features)
    return ShardReport(job, tuple(one.id for one in features), quarantined=tuple(quarantined))


def crashed(job: ShardJob) -> ShardReport:
    """Report a job of one utterance that no worker survived."""
    detail = "the worker process died on it, twice"
    failed = tuple(_failed(item, BadClipError("crash", detail)) for item in job.items)
    return ShardReport(job, quarantined=failed)


def _read_all(
    items: Sequence[PlannedUtterance], encoder: Encoder[Any]
) -> Iterator[tuple[PlannedUtterance, Any]]:
    """Yield what the encoder takes of each utterance, or the ``BadClipError`` that says why not."""
    # A GPU is faster than one core can decode; on a CPU the cores are busy with encoding.
    reading = _readers().map if encoder.device.type == "cuda" else map
    yield from zip(items, reading(partial(_try, encoder), items), strict=True)


@cache
def _readers() -> ThreadPoolExecutor:
    """Return the threads that decode, for all jobs in this process."""
    return ThreadPoolExecutor(cores())


def _try(encoder: Encoder[Any], item: PlannedUtterance) -> Any:
    try:
        return _read(item, encoder)
    except BadClipError as error:
        return error


def _read(item: PlannedUtterance, encoder: Encoder[Any]) -> Any:
    reader = READERS[encoder.modality]
    raw = reader.load(item.source, item.content_hash)
    # A text has its special tokens at least, and counting them would take as long as encoding.
    if isinstance(item.source, Path) and not encoder.frames(raw):
        raise BadClipError("too-short", f"{reader.length(raw)} are less than one frame")
    return raw


def _encode(
    encoder: Encoder[Any],
    readable: list[tuple[PlannedUtterance, Any]],
    dtype: str,
    quarantined: list[Quarantined],
) -> list[tuple[PlannedUtterance, np.ndarray[Any, Any]]]:
    """Encode all at once; if that fails, one at a time, to find out which one it is."""
    try:
        encoded = encoder.encode([raw for _, raw in readable], dtype)
        return [(item, states) for (item, _), states in zip(readable, encoded, strict=True)]
    except Exception as error:
        if len(readable) == 1:
            detail = f"the encoder failed on it ({type(error).__name__}: {error})"
            passing = isinstance(error, MemoryError | torch.OutOfMemoryError)
            bad = BadClipError("encoder", detail, passing=passing)
            quarantined.append(_failed(readable[0][0], bad))
            return []
    return [done for one in readable for done in _encode(encoder, [one], dtype, quarantined)]


def _failed(item: PlannedUtterance, error: BadClipError) -> Quarantined:
    content_hash = None if error.passing else item.content_hash
    return Quarantined(item.id, content_hash, error.reason, error.detail)
