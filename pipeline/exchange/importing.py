"""Import: features that another tool extracted become an entry of the cache."""

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...cache import (
    DTYPES,
    EntrySpec,
    EntryWriter,
    Quarantined,
    UtteranceFeatures,
    calibration_ids,
)
from ...cache.formats.arrays import Array
from ...cache.identity import checked_name
from ..corpora import Corpus
from ..corpora.manifest import from_table, to_table
from ..corpora.manifest_file import read_manifest
from ..errors import PipelineError, UsageError, unknown
from ..feature_cache import FORMAT_PLUGINS, FeatureCache, require_most
from ..progress import progress
from ..provenance import provenance
from .arrays import UnusableError
from .hidden_states import as_stored, hash_of, hidden_states
from .sources import FeatureSource, open_source
from .summary import ImportSummary

_PACKAGES = ("mser", "numpy", "zarr", "h5py")


@dataclass(frozen=True)
class ImportSettings:
    """The settings of an import."""

    source: Path
    """Features in one of the forms of :mod:`~mser.pipeline.exchange.sources`."""
    cache: str
    """Folder or URL of the cache."""
    dataset: str
    """Name of the dataset in the cache."""
    encoder: str
    """Name of the encoder that made the features; training finds them by this name."""
    modality: str = "speech"
    """Name of the modality: small letters, digits and underscores."""
    manifest: Path | None = None
    """A table that :mod:`~mser.pipeline.corpora.manifest_file` reads. By default the manifest that
    the cache has for the dataset."""
    dtype: str | None = None
    """float16, float32, bfloat16 or int8. By default float16 features stay float16; others, also
    whole numbers, become float32."""
    replace: bool = False
    """Replace a corpus in the cache although most of its utterances are not in the manifest."""
    store: str = "zarr"
    """Store format, as for :meth:`FeatureCache.writer`."""
    compression: str = "none"
    """Compression, as for :meth:`FeatureCache.writer`."""
    layers: tuple[int, ...] | None = None
    """The encoder's own layer numbers, in the order of the arrays; by default 0, 1, 2, …"""
    shard_mib: float = 64.0
    """Largest size of a shard in MiB, unless a single utterance is larger."""

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            UsageError: a value is out of range, or unknown.
        """
        if not self.encoder:
            raise UsageError("the encoder has no name: name the encoder that made the features")
        if not re.fullmatch("[a-z][a-z0-9_]*", self.modality):
            raise UsageError(
                f"modality {self.modality!r}: use small letters, digits and '_', such as 'my_audio'"
            )
        if self.dtype is not None and self.dtype not in DTYPES:
            raise unknown("dtype", self.dtype, DTYPES)
        if self.layers is not None:
            distinct = {layer for layer in self.layers if layer >= 0}
            if not self.layers or len(distinct) < len(self.layers):
                raise UsageError("layers: give different numbers of 0 or more, such as 0,6,12")
        if not self.shard_mib > 0:
            raise UsageError(f"shard_mib is {self.shard_mib}: give more than 0")


def import_features(settings: ImportSettings) -> ImportSummary:
    """Write features into the cache; features that are there unchanged are not written again.

    If the features of an utterance cannot be used, the utterance goes to the quarantine of the
    entry. An import that is killed loses the shard that it was filling; the next one continues.

    Raises:
        UsageError: the source or the manifest does not exist, or a setting does not fit them.
        PipelineError: the source has none of the forms or is inconsistent, it has utterances that
            the manifest does not have, or no features can be used.
        CacheError: the name of the dataset is not allowed, or the cache cannot be written.
    """
    started = time.monotonic()
    checked_name(settings.dataset)
    cache = FeatureCache(settings.cache)
    manifest = settings.manifest and settings.manifest.expanduser()
    corpus, digest = _manifest(settings.dataset, manifest, cache)
    if digest is None and not settings.replace:
        require_most(cache, corpus, "--replace")
    ids = [utterance.id for utterance in corpus.utterances]
    source = open_source(settings.source.expanduser(), ids if digest is None else None)
    _refuse_unknown(source, ids)
    spec = _spec(settings, source)
    writer = cache.writer(
        spec,
        provenance(_PACKAGES, source=str(source.path.resolve())),
        store=FORMAT_PLUGINS.admit(settings.store),
        compression=settings.compression,
    )
    if digest is None:
        root = Path() if manifest is None else manifest.parent
        digest = cache.write_manifest(settings.dataset, to_table(corpus, root, {}, {}))
    summary = ImportSummary(
        settings.dataset,
        settings.modality,
        settings.encoder,
        source.path,
        str(writer.folder),
        spec.layers,
        spec.dim,
        spec.dtype,
        notes=corpus.notes,
    )
    _fill(source, spec, writer, digest, summary, int(settings.shard_mib * 2**20))
    stored, failed = set(writer.committed()), set(writer.quarantined())
    summary.missing = [id for id in ids if id not in stored and id not in failed]
    summary.unlisted = sorted(stored.difference(ids))
    summary.seconds = time.monotonic() - started
    return summary


def _manifest(
    dataset: str, manifest: Path | None, cache: FeatureCache
) -> tuple[Corpus, str | None]:
    """Return the corpus, and the digest of its manifest if that is the one in the cache."""
    if manifest is not None:
        return read_manifest(manifest, dataset), None
    entries = [entry for entry in cache.entries(dataset) if entry.manifest]
    if not entries:
        raise UsageError(
            f"{cache.root} has no manifest of {dataset}: give one with --manifest, a table (.csv, "
            ".tsv, .jsonl or .parquet) with the columns id and label at least, because training "
            "needs labels"
        )
    digest = max(entries, key=lambda entry: entry.published).manifest
    corpus, _ = from_table(cache.read_manifest(dataset, digest))
    return corpus, digest


def _refuse_unknown(source: FeatureSource, ids: list[str]) -> None:
    known = set(ids)
    unknown_ids = [features.id for features in source.features if features.id not in known]
    if unknown_ids:
        example = f" (an id in the manifest is {ids[0]!r})" if ids else ""
        raise PipelineError(
            f"{source.path} has {len(unknown_ids)} utterances that are not in the manifest, such "
            f"as {unknown_ids[0]!r}{example}: give the manifest of these features, or add the "
            "utterances to it"
        )


def _spec(settings: ImportSettings, source: FeatureSource) -> EntrySpec:
    """Return the layers, dim and dtype that most of the arrays have; only headers are read."""
    forms: Counter[tuple[int, int]] = Counter()
    half: Counter[tuple[int, int]] = Counter()
    reason = "there are no features"
    with progress(len(source.features), "inspecting", "utterance") as bar:
        for features in source.features:
            bar.update()
            try:
                array = hidden_states(features.load())
            except UnusableError as error:
                reason = f"{features.id!r}: {error.detail}"
                continue
            form = (array.shape[0], array.shape[2])
            forms[form] += 1
            half[form] += array.dtype == np.float16
    if not forms:
        raise PipelineError(
            f"no features in {source.path} can be imported ({reason}): give arrays of "
            "numbers, (frames, dim) or (layers, frames, dim)"
        )
    (n_layers, dim), count = forms.most_common(1)[0]
    layers = settings.layers
    if layers is None:
        recorded = source.layers or ()
        layers = recorded if len(recorded) == n_layers else tuple(range(n_layers))
    if len(layers) != n_layers:
        raise UsageError(
            f"{len(layers)} layers are given, but the features in {source.path} have {n_layers}: "
            "give one number per layer"
        )
    return EntrySpec(
        dataset=settings.dataset,
        modality=settings.modality,
        encoder=settings.encoder,
        identity={"source": "imported", "encoder": settings.encoder},
        layers=layers,
        dim=dim,
        dtype=settings.dtype or ("float16" if half[n_layers, dim] == count else "float32"),
    )


def _fill(
    source: FeatureSource,
    spec: EntrySpec,
    writer: EntryWriter,
    manifest: str,
    summary: ImportSummary,
    shard_bytes: int,
) -> None:
    """Write the new features; publish what was written even after an error."""
    committed = writer.committed()
    failed = writer.quarantined()
    try:
        changed = _changed(source, spec, committed, failed, summary)
        for number, shard in enumerate(_in_shards(changed, shard_bytes)):
            if writer.lacks_scale:
                writer.scale(partial(_calibration, source, spec, shard))
            writer.write_shard(number, shard)
            summary.new += len(shard)
            frames = sum(utterance.hidden_states.shape[1] for utterance in shard)
            summary.bytes += frames * spec.bytes_per_frame
    finally:
        if committed or summary.new:
            writer.quarantine(failed.values())
            writer.publish(manifest)
    if not committed and not summary.new:
        first = summary.quarantined[0]
        raise PipelineError(
            f"no features in {source.path} can be imported: all {len(summary.quarantined)} "
            f"utterances are in quarantine ({first.id!r}: {first.detail}); correct them"
        )


def _changed(
    source: FeatureSource,
    spec: EntrySpec,
    committed: Mapping[str, str],
    failed: dict[str, Quarantined],
    summary: ImportSummary,
) -> Iterator[UtteranceFeatures]:
    """Read all features, and yield those that are new to the entry or differ from it."""
    with progress(len(source.features), "importing", "utterance") as bar:
        for features in source.features:
            bar.update()
            id = features.id
            array = None
            try:
                array = features.load()
                array = as_stored(hidden_states(array), spec)
            except UnusableError as error:
                content_hash = None if array is None else hash_of(array)
                failed[id] = Quarantined(id, content_hash, error.reason, error.detail)
                summary.quarantined.append(failed[id])
                continue
            failed.pop(id, None)
            content_hash = hash_of(array)
            if committed.get(id) == content_hash:
                summary.present += 1
            else:
                yield UtteranceFeatures(id, content_hash, array)


def _calibration(
    source: FeatureSource, spec: EntrySpec, shard: Iterable[UtteranceFeatures]
) -> list[Array]:
    """Return the hidden states that calibrate an ``int8`` entry.

    They are those of ``shard`` if no utterance of the calibration can be used.
    """
    chosen, states = set(calibration_ids(features.id for features in source.features)), []
    for features in source.features:
        if features.id in chosen:
            with suppress(UnusableError):
                states.append(as_stored(hidden_states(features.load()), spec))
    return states or [utterance.hidden_states for utterance in shard]


def _in_shards(
    features: Iterable[UtteranceFeatures], max_bytes: int
) -> Iterator[list[UtteranceFeatures]]:
    """Group features into shards of at most ``max_bytes``; a larger utterance is its own shard."""
    shard: list[UtteranceFeatures] = []
    size = 0
    for utterance in features:
        if shard and size + utterance.hidden_states.nbytes > max_bytes:
            yield shard
            shard, size = [], 0
        shard.append(utterance)
        size += utterance.hidden_states.nbytes
    if shard:
        yield shard
