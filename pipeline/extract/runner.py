"""Stage one: from a corpus on disk to features in the cache."""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ...cache import EntrySpec, EntryWriter, FeatureCache, Quarantined
from ..corpora import CORPORA, Corpus, Utterance, load_corpus
from ..corpora.counts import identical_clips
from ..corpora.manifest import to_table
from ..corpora.manifest_file import read_manifest
from ..encoders import Encoder, SpeechEncoder, load_encoder
from ..encoders.speech import SAMPLE_RATE
from ..errors import PipelineError, UsageError
from ..modalities import MODALITIES, source_of
from ..progress import progress
from ..provenance import provenance
from .engine import run_shards
from .readers import scan
from .scan import Scan
from .settings import ExtractSettings
from .sharding import PlannedUtterance, ShardJob, plan
from .summary import ModalitySummary, Summary
from .worker import ShardReport, extract_shard

_PACKAGES = ("mser", "torch", "torchaudio", "transformers", "av", "zarr", "h5py", "numpy")


@dataclass
class _Modality:
    """One modality of one run."""

    encoder: Encoder[Any]
    writer: EntryWriter
    quarantined: dict[str, Quarantined]
    quarantined_before: dict[str, Quarantined]
    jobs: list[ShardJob]
    summary: ModalitySummary


def extract(settings: ExtractSettings) -> Summary:
    """Bring the cache up to date with a corpus: what is there already is not computed again.

    An utterance whose clip or text cannot be used goes to the entry's quarantine and never ends the
    run. A run that is killed loses the shards it was working on, and the next one continues.

    Raises:
        UsageError: the corpus, an encoder or a setting is not there.
        PipelineError: the corpus is not what it should be, the disk is too small, the scheduler or
            its workers are not there, or, with ``strict``, an utterance failed.
        CacheError: the cache holds something else under the entry's name.
    """
    started = time.monotonic()
    corpus, root = _find_corpus(settings)
    _check_ids(corpus)
    backend = settings.backend
    # A GPU that other machines have need not be here, where only lengths are looked up.
    elsewhere = backend.remote and settings.device == "cuda"
    encoders = {
        modality: load_encoder(
            name,
            device="auto" if elsewhere else settings.device,
            precision=settings.precision,
            layers=settings.layers,
            max_seconds=settings.max_seconds,
            modality=modality,
        )
        for modality, name in settings.encoders.items()
    }
    device = next(iter(encoders.values())).device  # an unknown one is refused before any work
    chosen = corpus.utterances
    if settings.classes is not None:
        labelled = corpus.in_classes(settings.classes).utterances
        chosen = [a for a, b in zip(chosen, labelled, strict=True) if b.label is not None]
    chosen = chosen[: settings.limit]
    cache = FeatureCache(settings.cache)
    if not settings.dry_run:
        backend.check_available()

    scans = {modality: scan(chosen, modality) for modality in encoders}
    made = provenance(_PACKAGES, settings=settings.as_json(device), root=str(root))
    modalities = [
        _prepare(settings, cache, encoder, corpus, chosen, scans[modality], made)
        for modality, encoder in encoders.items()
    ]
    if settings.strict:
        for one in modalities:
            _refuse_bad(one.quarantined[u.id] for u in chosen if u.id in one.quarantined)
    of_audio = [scans[modality] for modality in scans if MODALITIES[modality].source == "audio"]
    clips = of_audio[0] if of_audio else Scan()
    summary = Summary(
        corpus,
        root,
        str(cache.root),
        settings.dry_run,
        len(chosen),
        sum(clips.seconds.values()) / 3600 if of_audio else None,
        identical_clips(chosen, clips.hashes),
        [one.summary for one in modalities],
    )
    if not settings.dry_run:
        size = _room(cache, modalities)
        table = to_table(corpus, root, clips.hashes, clips.seconds)
        manifest = partial(cache.write_manifest, corpus.name, table)
        reports = partial(run_shards, extract_shard, backend=backend, device=device)
        _fill(modalities, reports, manifest, f"extracting {size}", strict=settings.strict)
    for one in modalities:
        one.summary.quarantined = [one.quarantined[u.id] for u in chosen if u.id in one.quarantined]
    summary.seconds = time.monotonic() - started
    return summary


def _find_corpus(settings: ExtractSettings) -> tuple[Corpus, Path]:
    """Return the corpus, and the folder to which the paths of its clips are relative."""
    if settings.manifest and settings.name:
        path = settings.manifest.expanduser().resolve()
        if settings.name in CORPORA:
            raise UsageError(f"--name {settings.name} is the name of a known corpus: give another")
        return read_manifest(path, settings.name), path.parent
    assert settings.root is not None  # noqa: S101 -- the settings have been checked
    root = settings.root.expanduser().resolve()
    return load_corpus(settings.dataset, root), root


def _check_ids(corpus: Corpus) -> None:
    twice = [id for id, n in Counter(one.id for one in corpus.utterances).items() if n > 1]
    if twice:
        raise PipelineError(
            f"{corpus.name} names {len(twice)} utterances twice, such as '{twice[0]}': "
            "an id must be unique"
        )


def _prepare(
    settings: ExtractSettings,
    cache: FeatureCache,
    encoder: Encoder[Any],
    corpus: Corpus,
    chosen: list[Utterance],
    scan: Scan,
    made: dict[str, Any],
) -> _Modality:
    """Find out what is in the cache, and plan the rest."""
    spec = EntrySpec(
        dataset=corpus.name,
        modality=encoder.modality,
        encoder=encoder.name,
        identity=encoder.identity,
        layers=encoder.layers,
        dim=encoder.dim,
        dtype=settings.dtype,
    )
    made = {**made, "encoder_source": str(encoder.settings.files.folder)}
    writer_of = cache.existing if settings.dry_run else cache.writer
    writer = writer_of(spec, made, settings.store, settings.compression)
    committed = writer.committed()
    # A clip that is gone, or that the file system does not give just now, takes nothing away from
    # features that are in the cache.
    kept = {
        one.id
        for one in scan.quarantined
        if one.reason in ("absent", "unreadable", "git-lfs-pointer") and one.content_hash is None
    } & set(committed)
    # What failed before fails again until its content changes.
    before = writer.quarantined()
    quarantined = {
        id: one
        for id, one in before.items()
        if one.content_hash is not None
        and scan.hashes.get(id, one.content_hash) == one.content_hash
    } | {one.id: one for one in scan.quarantined if one.id not in kept}
    items = list(_items(encoder, chosen, scan))
    pending = {
        item.id
        for item in items
        if committed.get(item.id) != item.content_hash and item.id not in quarantined
    }
    shard_bytes = int(settings.largest_shard(encoder.device) * 2**20)
    summary = ModalitySummary(
        encoder.modality,
        encoder.name,
        str(writer.folder),
        encoder.layers,
        encoder.dim,
        settings.dtype,
    )
    summary.present = sum(committed.get(item.id) == item.content_hash for item in items) + len(kept)
    summary.pending = len(pending)
    summary.gone = len(set(committed) - {one.id for one in corpus.utterances})
    frames = sum(item.frames for item in items if item.id in pending)
    summary.bytes = frames * spec.bytes_per_frame
    if isinstance(encoder, SpeechEncoder):
        summary.long = list(_long(encoder, scan))
    there = replace(encoder.settings, device=settings.device)
    jobs = plan(items, pending, there, writer, shard_bytes)
    return _Modality(encoder, writer, quarantined, before, jobs, summary)


def _items(
    encoder: Encoder[Any], chosen: list[Utterance], scan: Scan
) -> Iterator[PlannedUtterance]:
    for utterance in chosen:
        content_hash = scan.hashes.get(utterance.id)
        if content_hash is None:
            continue
        source = source_of(utterance, encoder.modality)
        seconds = scan.seconds.get(utterance.id, 0.0)
        frames = encoder.planned_frames(source, seconds)
        yield PlannedUtterance(utterance.id, source, content_hash, frames, seconds)


def _long(encoder: SpeechEncoder, scan: Scan) -> Iterator[tuple[str, str]]:
    for id, seconds in scan.seconds.items():
        windows = encoder.windows_of(int(seconds * SAMPLE_RATE))
        if windows > 1:
            yield id, f"{seconds:.1f} s in {windows} windows of {encoder.max_seconds:g} s"


def _room(cache: FeatureCache, modalities: list[_Modality]) -> str:
    """Say how much will be written and how much is free, or refuse to begin."""
    needed = sum(one.summary.bytes for one in modalities)
    free = cache.root.free()
    if free is None:
        return f"({needed / 1e9:.2f} GB)"
    if needed > free:
        raise PipelineError(
            f"{cache.root} has {free / 1e9:.1f} GB free, and this extraction writes "
            f"{needed / 1e9:.1f} GB: choose another --cache, fewer --layers, or --limit"
        )
    return f"({needed / 1e9:.2f} GB, {free / 1e9:.0f} GB free)"


def _fill(
    modalities: list[_Modality],
    reports: Callable[[list[ShardJob]], Generator[ShardReport]],
    manifest: Callable[[], str],
    what: str,
    *,
    strict: bool,
) -> None:
    """Do the work, and publish what was done however it ends."""
    by_entry = {one.writer.folder: one for one in modalities}
    jobs = [job for one in modalities for job in one.jobs]
    try:
        with (
            closing(reports(jobs)) as done,  # so that workers end before what they did is shown
            progress(sum(len(job.items) for job in jobs), what, "utterance") as bar,
        ):
            audio, started = 0.0, time.monotonic()
            for report in done:
                audio += sum(item.seconds for item in report.job.items)
                if audio:
                    speed = audio / (time.monotonic() - started)
                    bar.set_postfix_str(f"{audio / 3600:.2f} h of audio, {speed:.0f}x", False)
                bar.update(len(report.job.items))
                _take(by_entry[report.job.writer.folder], report, strict=strict)
    finally:
        for one in modalities:
            now = one.writer.quarantined().items()  # others may have added some meanwhile
            others = {id: bad for id, bad in now if one.quarantined_before.get(id) != bad}
            one.writer.quarantine({**others, **one.quarantined}.values())
            # Only now, or it would lie about for as long as the run takes, and be of no use.
            one.writer.publish(manifest())


def _take(one: _Modality, report: ShardReport, *, strict: bool) -> None:
    summary = one.summary
    summary.new += len(report.stored)
    summary.elsewhere += len(report.elsewhere)
    summary.pending -= len(report.job.items)
    one.quarantined.update({bad.id: bad for bad in report.quarantined})
    if strict:
        _refuse_bad(report.quarantined)


def _refuse_bad(quarantined: Iterable[Quarantined]) -> None:
    for bad in quarantined:
        raise PipelineError(f"{bad.id}: {bad.reason}: {bad.detail} (the run is strict)")
