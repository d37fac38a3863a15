"""Stage one: from a corpus on disk to features in the cache."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...cache import (
    COMPRESSIONS,
    FORMATS,
    EntrySpec,
    EntryWriter,
    FeatureCache,
    Quarantined,
)
from ..corpora import CORPORA, Corpus, Utterance, load_corpus
from ..corpora.manifest import to_table
from ..corpora.manifest_csv import read_manifest_csv
from ..errors import PipelineError, UsageError, unknown
from ..progress import progress
from ..provenance import provenance
from .encoders import Encoder, SpeechEncoder, load_encoder
from .encoders.speech import MAX_SECONDS, SAMPLE_RATE
from .engine import default_workers, run
from .plan import Item, ShardJob, plan
from .scan import Scan, scan_clips, scan_texts
from .summary import ModalitySummary, Summary
from .work import ShardReport, extract_shard

_DTYPES = ("float16", "float32")
_PACKAGES = ("mser", "torch", "torchaudio", "transformers", "av", "zarr", "h5py", "numpy")


@dataclass(frozen=True)
class ExtractSettings:
    """What to extract, from where, into which cache.

    A corpus lies below ``root``; that of the dataset ``manifest`` is described by the file
    ``manifest``, and called ``name`` in the cache. ``classes`` takes only the utterances of a class
    set, such as IEMOCAP's ``4``.

    ``layers``, ``dtype`` and ``precision`` change the numbers and are part of an entry's identity;
    ``device``, ``workers``, ``store``, ``compression`` and ``shard_mib`` do not. ``workers`` is the
    number of processes; ``None`` chooses, 0 works in this process without Dask. ``limit`` takes the
    first utterances only; ``strict`` ends the run at the first utterance that fails.
    """

    dataset: str
    root: Path | None
    cache: str | Path  # or the URL of an object store
    encoders: dict[str, str]  # by modality: a hub name or a folder
    manifest: Path | None = None
    name: str | None = None
    classes: str | None = None
    layers: str = "all"
    dtype: str = "float16"
    precision: str = "float32"
    device: str = "auto"
    workers: int | None = None
    limit: int | None = None
    strict: bool = False
    dry_run: bool = False
    shard_mib: float = 64.0
    store: str = "zarr"
    compression: str = "none"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: a value is out of range, or unknown.
        """
        if not self.encoders:
            raise UsageError("no modality is asked for: say speech, text, or both")
        for modality in self.encoders:
            if modality not in ("speech", "text"):
                raise unknown("modality", modality, ("speech", "text"))
        of_manifest = self.dataset == "manifest"
        if of_manifest and not (self.manifest and self.name and self.root is None):
            raise UsageError("dataset 'manifest' is described by --manifest and --name, no --root")
        if not of_manifest and (self.root is None or self.manifest or self.name):
            raise UsageError(f"dataset '{self.dataset}' is described by --root alone")
        if self.dtype not in _DTYPES:
            raise unknown("dtype", self.dtype, _DTYPES)
        if self.store not in FORMATS:
            raise unknown("store", self.store, FORMATS)
        if self.compression not in COMPRESSIONS:
            raise unknown("compression", self.compression, COMPRESSIONS)
        if self.workers is not None and self.workers < 0:
            raise UsageError(f"{self.workers} workers: give 0 (this process) or more")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"limit {self.limit}: give 1 or more")
        if not self.shard_mib > 0:
            raise UsageError(f"shards of {self.shard_mib} MiB: give more than 0")


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
        PipelineError: the corpus is not what it should be, the disk is too small, or, with
            ``strict``, an utterance failed.
        CacheError: the cache holds something else under the entry's name.
    """
    started = time.monotonic()
    corpus, root = _find_corpus(settings)
    _check_ids(corpus)
    encoders = {
        modality: load_encoder(
            name,
            device=settings.device,
            precision=settings.precision,
            layers=settings.layers,
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

    scans = {
        modality: scan_clips(chosen) if modality == "speech" else scan_texts(chosen)
        for modality in encoders
    }
    workers = default_workers(device) if settings.workers is None else settings.workers
    run_settings = _settings(settings, workers, str(device))
    made = provenance(_PACKAGES, settings=run_settings, root=str(root))
    modalities = [
        _prepare(settings, cache, encoder, corpus, chosen, scans[modality], made)
        for modality, encoder in encoders.items()
    ]
    if settings.strict:
        for one in modalities:
            _refuse_bad(one.quarantined[u.id] for u in chosen if u.id in one.quarantined)
    clips = scans.get("speech", Scan())
    summary = Summary(
        corpus,
        root,
        str(cache.root),
        settings.dry_run,
        sum(clips.seconds.values()) / 3600 if "speech" in scans else None,
        [one.summary for one in modalities],
    )
    if not settings.dry_run:
        size = _room(cache, modalities)
        table = to_table(corpus, root, clips.hashes, clips.seconds)
        manifest = partial(cache.write_manifest, corpus.name, table)
        _fill(modalities, workers, manifest, f"extracting {size}", strict=settings.strict)
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
        return read_manifest_csv(path, settings.name), path.parent
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
    made = {**made, "encoder_source": str(encoder.folder)}
    writer_of = cache.existing if settings.dry_run else cache.writer
    writer = writer_of(spec, made, settings.store, settings.compression)
    committed = writer.committed()
    # A clip that is gone, or that the file system does not give just now, takes nothing away from
    # features that are in the cache.
    kept = {
        one.id
        for one in scan.quarantined
        if one.reason in ("absent", "unreadable") and one.content_hash is None
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
    shard_bytes = int(settings.shard_mib * 2**20)
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
    jobs = plan(items, pending, encoder.settings, writer, shard_bytes)
    return _Modality(encoder, writer, quarantined, before, jobs, summary)


def _items(encoder: Encoder[Any], chosen: list[Utterance], scan: Scan) -> Iterator[Item]:
    for utterance in chosen:
        content_hash = scan.hashes.get(utterance.id)
        if content_hash is None:
            continue
        if isinstance(encoder, SpeechEncoder):
            assert utterance.audio is not None  # noqa: S101 -- it has a hash, so it was read
            frames = encoder.frames_of(int(scan.seconds[utterance.id] * SAMPLE_RATE))
            yield Item(utterance.id, utterance.audio, content_hash, frames)
        else:
            assert utterance.text is not None  # noqa: S101
            frames = encoder.frames(utterance.text)
            yield Item(utterance.id, utterance.text, content_hash, frames)


def _long(encoder: SpeechEncoder, scan: Scan) -> Iterator[tuple[str, str]]:
    for id, seconds in scan.seconds.items():
        windows = encoder.windows_of(int(seconds * SAMPLE_RATE))
        if windows > 1:
            yield id, f"{seconds:.1f} s in {windows} windows of {MAX_SECONDS:.0f} s"


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
    workers: int,
    manifest: Callable[[], str],
    what: str,
    *,
    strict: bool,
) -> None:
    """Do the work, and publish what was done however it ends."""
    by_entry = {one.writer.folder: one for one in modalities}
    jobs = [job for one in modalities for job in one.jobs]
    try:
        with progress(sum(len(job.items) for job in jobs), what, "utterance") as bar:
            for report in run(extract_shard, jobs, workers):
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


def _settings(settings: ExtractSettings, workers: int, device: str) -> dict[str, Any]:
    """Return what was chosen, by the user or by default."""
    return {
        "layers": settings.layers,
        "dtype": settings.dtype,
        "precision": settings.precision,
        "device": device,
        "workers": workers,
        "shard_mib": settings.shard_mib,
        "store": settings.store,
        "compression": settings.compression,
    }
