"""Extract the features of a corpus into the cache."""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from ...cache import CacheError, EntrySpec, EntryWriter, Quarantined, calibration_ids
from ..corpora import CORPORA, CORPUS_PLUGINS, Corpus, Utterance, load_corpus
from ..corpora.counts import identical_clips
from ..corpora.manifest import to_table
from ..corpora.manifest_file import read_manifest
from ..encoders import Encoder, SpeechEncoder, load_encoder
from ..encoders.model_card import emotion_labels
from ..encoders.speech import SAMPLE_RATE
from ..errors import PipelineError, UsageError
from ..feature_cache import FeatureCache, require_most
from ..modalities import MODALITIES, source_of
from ..progress import StatusBar
from ..provenance import provenance
from ..store_formats import FORMAT_PLUGINS
from .crops import with_crops
from .engine import run_shards
from .readers import scan
from .scan import Scan
from .settings import ExtractSettings
from .sharding import PlannedUtterance, ShardJob, plan_shards
from .sizes import sizes_of
from .summary import ModalitySummary, Summary
from .work_done import WorkDone
from .worker import ShardReport, extract_shard

_OF_VIDEOS = ("pillow", "opencv-python-headless")
_PACKAGES = ("mser", "torch", "torchaudio", "transformers", "av", "zarr", "h5py", "numpy")


@dataclass
class _ModalityRun:
    """One modality of one run."""

    encoder: Encoder[Any]
    writer: EntryWriter
    quarantined: dict[str, Quarantined]
    quarantined_before: dict[str, Quarantined]
    jobs: list[ShardJob]
    summary: ModalitySummary


def extract(settings: ExtractSettings) -> Summary:
    """Bring the cache up to date with a corpus; features that it already holds are not recomputed.

    An utterance whose clip or text cannot be used goes to the entry's quarantine and does not end
    the run. A run that is killed loses the shards it was working on; the next run continues.

    Raises:
        UsageError: the corpus or an encoder does not exist.
        PipelineError: the corpus has a fault, the disk is too small, the scheduler or its workers
            are not available, or, with ``strict``, an utterance failed.
        CacheError: the cache holds something else under the entry's name.
    """
    started = time.monotonic()
    corpus, root = _find_corpus(settings)
    _check_ids(corpus)
    filmed = with_crops(corpus, settings.frames.faces)
    for modality in settings.encoders:  # before the encoders, which may not be there
        _require_content(filmed, modality, list(settings.encoders), settings.manifest)
    backend = settings.backend
    # If other machines compute on their GPUs, this one needs none: it only counts frames.
    remote_gpu = backend.remote and settings.device == "cuda"
    encoders = {
        modality: load_encoder(
            name,
            device="auto" if remote_gpu else settings.device,
            precision=settings.precision,
            layers=settings.layers,
            max_seconds=settings.max_seconds,
            frames=settings.frames,
            means=settings.means,
            modality=modality,
        )
        for modality, name in settings.encoders.items()
    }
    device = next(iter(encoders.values())).device
    chosen = filmed.utterances
    if settings.classes is not None:
        labelled = corpus.in_classes(settings.classes).utterances
        chosen = [
            utterance
            for utterance, in_class in zip(chosen, labelled, strict=True)
            if in_class.label is not None
        ]
    chosen = chosen[: settings.limit]
    cache = FeatureCache(settings.cache)
    if not settings.dry_run:
        if not settings.replace:
            require_most(cache, corpus, "--replace")
        backend.check_available()

    scans = {modality: scan(chosen, modality) for modality in encoders}
    by_source = {MODALITIES[modality].source: result for modality, result in scans.items()}
    origin = provenance(
        (*_PACKAGES, *_installed(_OF_VIDEOS if "video" in by_source else ())),
        settings=settings.as_json(device),
        root=str(root),
        **({"plugins": plugins} if (plugins := _plugins(settings)) else {}),
    )
    runs = [
        _prepare(settings, cache, encoder, filmed, chosen, scans[modality], origin)
        for modality, encoder in encoders.items()
    ]
    if settings.strict:
        for modality_run in runs:
            _raise_first(_quarantined(modality_run, chosen))
    audio, video = (by_source.get(source, Scan()) for source in ("audio", "video"))
    seconds = (audio if "audio" in by_source else video).seconds
    summary = Summary(
        corpus,
        root,
        str(cache.root),
        settings.dry_run,
        len(chosen),
        sum(audio.seconds.values()) / 3600 if "audio" in by_source else None,
        identical_clips(chosen, audio.hashes or video.hashes),
        [modality_run.summary for modality_run in runs],
    )
    if not settings.dry_run:
        for modality_run in runs:
            _make_folders(modality_run)
        size = _checked_size(cache, runs)
        # Crops are not the videos of the corpus, and may be others the next time.
        hashes = video.hashes if filmed is corpus else {}
        read = hashes if "video" in by_source else None
        table = to_table(corpus, root, audio.hashes, seconds, read)
        manifest = partial(cache.write_manifest, corpus.name, table)
        reports = partial(run_shards, extract_shard, backend=backend, device=device)
        _extract(runs, reports, manifest, size, strict=settings.strict)
    for modality_run in runs:
        modality_run.summary.quarantined = _quarantined(modality_run, chosen)
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


def _installed(packages: Iterable[str]) -> Iterator[str]:
    for name in packages:
        if any(distributions(name=name)):
            yield name


def _plugins(settings: ExtractSettings) -> dict[str, dict[str, str]]:
    """Return the origins of the code of plug-ins, except of encoders, whose identity has them."""
    origins = {
        "dataset": CORPUS_PLUGINS.origin(CORPUS_PLUGINS.key(settings.dataset)),
        "store": FORMAT_PLUGINS.origin(settings.store),
    }
    return {name: origin.as_json() for name, origin in origins.items() if origin is not None}


def _check_ids(corpus: Corpus) -> None:
    counts = Counter(utterance.id for utterance in corpus.utterances)
    repeated = [id for id, count in counts.items() if count > 1]
    if repeated:
        raise PipelineError(
            f"{corpus.name} has {len(repeated)} repeated ids, such as '{repeated[0]}': "
            "an id must be unique"
        )


def _require_content(
    corpus: Corpus, modality: str, modalities: list[str], manifest: Path | None
) -> None:
    """Check that at least one utterance has what the features are computed from."""
    if any(source_of(utterance, modality) for utterance in corpus.utterances):
        return
    others = ",".join(name for name in modalities if name != modality)
    source = MODALITIES[modality].source
    advice = f"give --modalities {others}" if others else f"add its {source}"
    if manifest is not None and corpus.columns:
        advice += f", or name the column that has it '{source}', not {' or '.join(corpus.columns)}"
    raise UsageError(f"no utterance of {corpus.name} has {source}: {advice}")


def _named_as_before(spec: EntrySpec, folder: str, cache: FeatureCache) -> EntrySpec:
    """Return the spec with the name of the encoder's folder if the cache has its entry so.

    Older entries bear the name of the folder alone. The features are the same: their key is equal.
    """
    older = replace(spec, encoder=folder)
    if cache.existing(older).shards() and not cache.existing(spec).shards():
        return older
    return spec


def _quarantined(modality: _ModalityRun, chosen: list[Utterance]) -> list[Quarantined]:
    by_id = modality.quarantined
    return [by_id[utterance.id] for utterance in chosen if utterance.id in by_id]


def _prepare(
    settings: ExtractSettings,
    cache: FeatureCache,
    encoder: Encoder[Any],
    corpus: Corpus,
    chosen: list[Utterance],
    scan: Scan,
    origin: dict[str, Any],
) -> _ModalityRun:
    """Plan the utterances that the cache does not hold yet."""
    spec = EntrySpec(
        dataset=corpus.name,
        modality=encoder.modality,
        encoder=encoder.name,
        identity=encoder.identity,
        layers=encoder.layers,
        dim=encoder.dim,
        dtype=settings.dtype,
    )
    spec = _named_as_before(spec, encoder.settings.files.folder.name, cache)
    files = encoder.settings.files
    seen = emotion_labels(files.folder)
    more = {"emotion_labels": seen} if seen else {}
    origin = {**origin, "encoder_source": files.source, **more}
    writer = cache.existing(spec, origin, settings.store, settings.compression)
    if not settings.dry_run:
        writer.check()
    index = writer.stored()
    writer, committed = writer.following(index), index.content_hashes()
    # Features in the cache stay there if their clip is deleted, or cannot be read at the moment.
    kept = {
        bad.id
        for bad in scan.quarantined
        if bad.reason in ("absent", "unreadable", "git-lfs-pointer") and bad.content_hash is None
    } & set(committed)
    # An utterance that failed before would fail again, unless its content has changed.
    before = writer.quarantined()
    quarantined = {
        id: bad
        for id, bad in before.items()
        if bad.content_hash is not None
        and scan.hashes.get(id, bad.content_hash) == bad.content_hash
    } | {bad.id: bad for bad in scan.quarantined if bad.id not in kept}
    items = list(_items(encoder, chosen, scan))
    pending = {
        item.id
        for item in items
        if committed.get(item.id) != item.content_hash and item.id not in quarantined
    }
    shard_bytes = int(settings.largest_shard(encoder.device) * 2**20)
    summary = ModalitySummary(
        encoder.modality,
        spec.encoder,
        str(writer.folder),
        encoder.layers,
        encoder.dim,
        settings.dtype,
    )
    summary.present = sum(committed.get(item.id) == item.content_hash for item in items) + len(kept)
    summary.pending = len(pending)
    summary.gone = len(set(committed) - {utterance.id for utterance in corpus.utterances})
    means = settings.means
    frames = sum(means.count(item.frames) for item in items if item.id in pending)
    summary.bytes = frames * spec.bytes_per_frame
    if isinstance(encoder, SpeechEncoder):
        summary.long = list(_long(encoder, scan))
    encoder_settings = replace(encoder.settings, device=settings.device)
    summary.sizes = sizes_of(spec, [item.frames for item in items], means)
    calibration = _calibration(encoder, corpus) if pending and writer.lacks_scale else ()
    jobs = plan_shards(
        items, pending, encoder_settings, writer, shard_bytes, encoder.input_bytes, calibration
    )
    return _ModalityRun(encoder, writer, quarantined, before, jobs, summary)


def _make_folders(modality: _ModalityRun) -> None:
    """Create the folders of an entry; a complete one may be in a cache that can only be read."""
    try:
        modality.writer.prepare()
    except CacheError:
        if modality.jobs:
            raise


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


def _calibration(encoder: Encoder[Any], corpus: Corpus) -> tuple[PlannedUtterance, ...]:
    """Return what calibrates an entry: the same utterances whatever part of the corpus is chosen.

    Those that cannot be used are left out.
    """
    usable = {u.id: u for u in corpus.utterances if source_of(u, encoder.modality)}
    utterances = [usable[id] for id in calibration_ids(usable)]
    return tuple(_items(encoder, utterances, scan(utterances, encoder.modality)))


def _long(encoder: SpeechEncoder, scan: Scan) -> Iterator[tuple[str, str]]:
    for id, seconds in scan.seconds.items():
        windows = encoder.windows_of(int(seconds * SAMPLE_RATE))
        if windows > 1:
            yield id, f"{seconds:.1f} s in {windows} windows of {encoder.max_seconds:g} s"


def _checked_size(cache: FeatureCache, runs: list[_ModalityRun]) -> str:
    """Return how much will be written and how much space is free, as text.

    Raises:
        PipelineError: the disk has not enough space.
    """
    needed = sum(modality.summary.bytes for modality in runs)
    free = cache.root.free()
    if free is None:
        return f"writes {needed / 1e9:.2f} GB"
    if needed > free:
        raise PipelineError(
            f"{cache.root} has {free / 1e9:.1f} GB free, and this extraction writes "
            f"{needed / 1e9:.1f} GB: give another --cache, fewer --layers, or a --limit"
        )
    return f"writes {needed / 1e9:.2f} GB of {free / 1e9:.0f} GB free"


def _extract(
    runs: list[_ModalityRun],
    reports: Callable[[list[ShardJob]], Generator[ShardReport]],
    manifest: Callable[[], str],
    size: str,
    *,
    strict: bool,
) -> None:
    """Do the jobs; publish the finished shards also if an error or Ctrl-C ends the run."""
    by_entry = {modality.writer.folder: modality for modality in runs}
    jobs = [job for modality in runs for job in modality.jobs]
    try:
        with (
            closing(reports(jobs)) as done,  # the workers end before their shards are published
            StatusBar() as bar,
        ):
            work = WorkDone(jobs)
            bar.show(0.0, f"{work}, {size}")
            for report in done:
                work.add(report.job)
                bar.show(work.share, f"{work}, {size}")
                _count(by_entry[report.job.writer.folder], report, strict=strict)
    finally:
        for modality in runs:
            now = modality.writer.quarantined().items()  # other runs may have added some meanwhile
            others = {id: bad for id, bad in now if modality.quarantined_before.get(id) != bad}
            modality.writer.quarantine({**others, **modality.quarantined}.values())
            # If the file system has disappeared, this raises: a manifest written now would be
            # below its mount point. The manifest is written only now, when an entry refers to it.
            modality.writer.folder.free()
            modality.writer.publish(manifest())


def _count(modality: _ModalityRun, report: ShardReport, *, strict: bool) -> None:
    summary = modality.summary
    summary.new += len(report.stored)
    summary.remarks += report.remarks
    stored = set(report.stored)
    if MODALITIES[summary.modality].source == "audio":
        summary.audio += sum(item.seconds for item in report.job.items if item.id in stored)
    summary.elsewhere += len(report.elsewhere)
    summary.pending -= len(report.job.items)
    modality.quarantined.update({bad.id: bad for bad in report.quarantined})
    if strict:
        _raise_first(report.quarantined)


def _raise_first(quarantined: Iterable[Quarantined]) -> None:
    for bad in quarantined:
        raise PipelineError(f"{bad.id}: {bad.reason}: {bad.detail} (--strict ends the run here)")
