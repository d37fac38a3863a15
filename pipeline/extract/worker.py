"""Extract one shard, from files to committed features."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from threading import Lock
from typing import Any

import numpy as np
import torch

from ...cache import Quarantined, UtteranceFeatures
from ..encoders import Encoder, EncoderSettings, encoder_of
from ..store_formats import FORMAT_PLUGINS
from .audio import BadClipError
from .readers import READERS
from .sharding import PlannedUtterance, ShardJob

_READERS = 4  # threads that decode for a GPU; more would wait for each other in Python
_CALIBRATING = 600.0  # seconds to wait for another process that computes the scale


@dataclass(frozen=True)
class ShardReport:
    """The result of a job."""

    job: ShardJob
    """The job that this is the report of."""
    stored: tuple[str, ...] = ()
    """Ids of the utterances that this job has stored in the cache."""
    elsewhere: tuple[str, ...] = ()
    """Ids of the utterances that another process had stored before."""
    quarantined: tuple[Quarantined, ...] = ()
    """The utterances that failed, each with its reason."""
    remarks: tuple[tuple[str, str], ...] = ()
    """Ids of utterances that are stored, each with what a user should know of it."""
    busy: bool = False
    """Whether another process is working on this shard; then nothing was done."""


_loading = Lock()


def cached_encoder(settings: EncoderSettings) -> Encoder[Any]:
    """Return the encoder of this process; all its threads share it."""
    with _loading:  # otherwise two threads at once would each make an encoder
        return _encoder(settings)


@lru_cache(maxsize=2)  # a run has at most one of each modality
def _encoder(settings: EncoderSettings) -> Encoder[Any]:
    return encoder_of(settings)


def extract_shard(job: ShardJob) -> ShardReport:
    """Decode, encode and commit the utterances of one shard, unless another process does it."""
    FORMAT_PLUGINS.admit(job.writer.store)
    # Do not wait for the other process: this process would then take each shard after it, and find
    # nothing to do.
    with job.writer.lease(job.lease) as acquired:
        if not acquired:
            return ShardReport(job, busy=True)
        # Another process may have stored some of them since the work was planned.
        index = job.writer.stored(job.number)
        job, committed = replace(job, writer=job.writer.following(index)), index.content_hashes()
        elsewhere = tuple(
            item.id for item in job.items if committed.get(item.id) == item.content_hash
        )
        todo = [item for item in job.items if item.id not in set(elsewhere)]
        return replace(_extracted(job, todo), elsewhere=elsewhere)


def _extracted(job: ShardJob, items: Sequence[PlannedUtterance]) -> ShardReport:
    encoder = cached_encoder(job.encoder)
    # Load the model here, where an error ends the run; an error below fails only one utterance.
    _ = encoder.model
    quarantined: list[Quarantined] = []
    readable: list[tuple[PlannedUtterance, Any]] = []
    for item, raw in _read_all(items, encoder):
        if isinstance(raw, BadClipError):
            quarantined.append(_failed(item, raw))
        else:
            readable.append((item, raw))
    features: list[UtteranceFeatures] = []
    dtype = job.writer.spec.read_dtype
    for item, hidden_states in _encode(encoder, readable, dtype, quarantined):
        if not hidden_states.shape[1]:
            bad = BadClipError("too-short", "its features have no frames")
            quarantined.append(_failed(item, bad))
        elif np.isfinite(hidden_states).all():
            features.append(UtteranceFeatures(item.id, item.content_hash, hidden_states))
        else:
            detail = "its features contain infinite values or NaN"
            if dtype == "float16" and not np.isnan(hidden_states).any():
                detail = "its features do not fit float16: extract with --dtype float32"
            quarantined.append(_failed(item, BadClipError("not-finite", detail)))
    if features:
        if job.writer.lacks_scale:
            _calibrate(job, encoder, features)
        job.writer.write_shard(job.number, features)
    stored = tuple(utterance.id for utterance in features)
    remarks = tuple(
        (item.id, remark)
        for item, raw in readable
        if (remark := getattr(raw, "remark", None)) and item.id in stored
    )
    return ShardReport(job, stored, quarantined=tuple(quarantined), remarks=remarks)


def _calibrate(job: ShardJob, encoder: Encoder[Any], features: Sequence[UtteranceFeatures]) -> None:
    """Give the entry its scale, or wait until another process has done so.

    It is computed from the calibration of the job; from ``features`` if nothing of it is usable.
    """

    def states() -> Iterator[np.ndarray[Any, Any]]:
        usable = 0
        for item, raw in _read_all(job.calibration, encoder):
            if not isinstance(raw, BadClipError):
                # One at a time: the features of all would take much memory.
                for _, states in _encode(encoder, [(item, raw)], "float32", []):
                    if states.size and np.isfinite(states).all():
                        usable += 1
                        yield states
        if not usable:
            yield from (utterance.hidden_states for utterance in features)

    with job.writer.lease("scale", _CALIBRATING):  # without it, each process does the same
        job.writer.scale(states)


def crash_report(job: ShardJob) -> ShardReport:
    """Return the report of a job that killed its workers."""
    detail = "two worker processes died while they extracted it (too little memory?)"
    failed = tuple(_failed(item, BadClipError("crash", detail)) for item in job.items)
    return ShardReport(job, quarantined=failed)


def _read_all(
    items: Sequence[PlannedUtterance], encoder: Encoder[Any]
) -> Iterator[tuple[PlannedUtterance, Any]]:
    """Yield each utterance with its wave or text, or with the ``BadClipError`` that it raised."""
    # One core decodes more slowly than a GPU encodes. Without a GPU the cores are busy encoding.
    reading = _readers().map if encoder.device.type == "cuda" else map
    yield from zip(items, reading(partial(_try, encoder), items), strict=True)


@cache
def _readers() -> ThreadPoolExecutor:
    """Return the threads on which all jobs of this process decode."""
    return ThreadPoolExecutor(_READERS)


def _try(encoder: Encoder[Any], item: PlannedUtterance) -> Any:
    try:
        return _read(item, encoder)
    except BadClipError as error:
        return error


def _read(item: PlannedUtterance, encoder: Encoder[Any]) -> Any:
    reader = READERS[encoder.modality]
    raw = reader.load(item.source, item.content_hash, encoder)
    # A text has its special tokens at least, and counting them would take as long as encoding.
    if item.path is not None and not encoder.frames(raw):
        raise BadClipError("too-short", f"{reader.length(raw)} are shorter than one frame")
    return raw


def _encode(
    encoder: Encoder[Any],
    readable: list[tuple[PlannedUtterance, Any]],
    dtype: str,
    quarantined: list[Quarantined],
) -> list[tuple[PlannedUtterance, np.ndarray[Any, Any]]]:
    """Encode all utterances at once; if that fails, one at a time, to find the one that fails."""
    try:
        encoded = encoder.encode([raw for _, raw in readable], dtype)
        return [(item, states) for (item, _), states in zip(readable, encoded, strict=True)]
    except Exception as error:
        if len(readable) == 1:
            detail = f"the encoder failed ({type(error).__name__}: {error})"
            transient = isinstance(error, MemoryError | torch.OutOfMemoryError)
            bad = BadClipError("encoder", detail, transient=transient)
            quarantined.append(_failed(readable[0][0], bad))
            return []
    return [pair for one in readable for pair in _encode(encoder, [one], dtype, quarantined)]


def _failed(item: PlannedUtterance, error: BadClipError) -> Quarantined:
    content_hash = None if error.transient else item.content_hash
    return Quarantined(item.id, content_hash, error.reason, error.detail)
