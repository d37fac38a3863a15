"""Features that another tool has extracted, brought into the cache as an entry like any other."""

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...cache import EntrySpec, EntryWriter, FeatureCache, Quarantined, UtteranceFeatures
from ...cache.identity import checked_name
from ..corpora import Corpus
from ..corpora.manifest import from_table, to_table
from ..corpora.manifest_file import read_manifest
from ..errors import PipelineError, UsageError, unknown
from ..progress import progress
from ..provenance import provenance
from .arrays import UnusableError
from .hidden_states import as_stored, hash_of, hidden_states
from .sources import Source, open_source
from .summary import ImportSummary

_DTYPES = ("float16", "float32")
_PACKAGES = ("mser", "numpy", "zarr", "h5py")


@dataclass(frozen=True)
class ImportSettings:
    """Which features to import, from where, into which cache.

    ``source`` is in one of the forms of :mod:`~mser.pipeline.exchange.sources`. ``encoder`` is the
    name by which the features are found again. ``manifest`` is a file as
    :mod:`~mser.pipeline.corpora.manifest_file` reads it; without one, the dataset must be in the
    cache already. ``dtype`` is that of the stored features; by default float16 stays float16, and
    all else becomes float32. ``layers`` are the encoder's own numbers of the layers, in the order
    in which they lie in the arrays. ``store`` and ``compression`` are those of
    :meth:`FeatureCache.writer`.
    """

    source: Path
    cache: str
    dataset: str
    encoder: str
    modality: str = "speech"
    manifest: Path | None = None
    dtype: str | None = None
    store: str = "zarr"
    compression: str = "none"
    layers: tuple[int, ...] | None = None
    shard_mib: float = 64.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: a value is out of range, or unknown.
        """
        if not self.encoder:
            raise UsageError("the encoder has no name: say which one made the features")
        if not re.fullmatch("[a-z][a-z0-9_]*", self.modality):
            raise UsageError(
                f"modality {self.modality!r}: use small letters, digits and '_', such as speech"
            )
        if self.dtype is not None and self.dtype not in _DTYPES:
            raise unknown("dtype", self.dtype, _DTYPES)
        if self.layers is not None:
            distinct = {layer for layer in self.layers if layer >= 0}
            if not self.layers or len(distinct) < len(self.layers):
                raise UsageError("layers: give different numbers from 0 on, such as 0,6,12")
        if not self.shard_mib > 0:
            raise UsageError(f"shards of {self.shard_mib} MiB: give more than 0")


def import_features(settings: ImportSettings) -> ImportSummary:
    """Bring features into the cache; what is there already, unchanged, is not written again.

    Features of one utterance that cannot be used go to the entry's quarantine. An import that is
    killed loses the shard that it was filling, and the next one continues.

    Raises:
        UsageError: the source or the manifest is not there, or a setting does not fit them.
        PipelineError: the source is in none of the forms or contradicts itself, it has utterances
            that the manifest has not, or none of it can be used.
        CacheError: the dataset's name cannot be one, or the cache cannot be written.
    """
    started = time.monotonic()
    checked_name(settings.dataset)
    cache = FeatureCache(settings.cache)
    manifest = settings.manifest and settings.manifest.expanduser()
    corpus, digest = _manifest(settings.dataset, manifest, cache)
    ids = [one.id for one in corpus.utterances]
    source = open_source(settings.source.expanduser(), ids if digest is None else None)
    _refuse_unknown(source, ids)
    spec = _spec(settings, source)
    writer = cache.writer(
        spec,
        provenance(_PACKAGES, source=str(source.path.resolve())),
        store=settings.store,
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
    """Return the corpus, and the digest of its manifest if the cache has it already."""
    if manifest is not None:
        return read_manifest(manifest, dataset), None
    entries = [entry for entry in cache.entries(dataset) if entry.manifest]
    if not entries:
        raise UsageError(
            f"{cache.root} has never heard of {dataset}: give --manifest, a file "
            "(.csv, .jsonl or .parquet) with the columns id and label at least, because training "
            "needs labels"
        )
    digest = max(entries, key=lambda entry: entry.published).manifest
    corpus, _ = from_table(cache.read_manifest(dataset, digest))
    return corpus, digest


def _refuse_unknown(source: Source, ids: list[str]) -> None:
    known = set(ids)
    unknown_ids = [one.id for one in source.features if one.id not in known]
    if unknown_ids:
        known_one = f" (an id of the manifest is {ids[0]!r})" if ids else ""
        raise PipelineError(
            f"{source.path} has {len(unknown_ids)} utterances that the manifest has not, such as "
            f"{unknown_ids[0]!r}{known_one}: give the manifest that belongs to it, or add them "
            "there"
        )


def _spec(settings: ImportSettings, source: Source) -> EntrySpec:
    """Find the form that most of the arrays have; nothing but their headers is read."""
    forms: Counter[tuple[int, int]] = Counter()
    half: Counter[tuple[int, int]] = Counter()
    reason = "there are none"
    with progress(len(source.features), "looking at", "utterance") as bar:
        for one in source.features:
            bar.update()
            try:
                array = hidden_states(one.load())
            except UnusableError as error:
                reason = f"{one.id!r}: {error.detail}"
                continue
            form = (array.shape[0], array.shape[2])
            forms[form] += 1
            half[form] += array.dtype == np.float16
    if not forms:
        raise PipelineError(
            f"none of the features in {source.path} can be imported ({reason}): give floating-"
            "point arrays, (frames, dim) or (layers, frames, dim)"
        )
    (n_layers, dim), count = forms.most_common(1)[0]
    layers = settings.layers
    if layers is None:
        told = source.layers
        layers = told if told and len(told) == n_layers else tuple(range(n_layers))
    if len(layers) != n_layers:
        raise UsageError(
            f"{len(layers)} layers are named, and the features in {source.path} have {n_layers}: "
            "name as many as there are"
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
    source: Source,
    spec: EntrySpec,
    writer: EntryWriter,
    manifest: str,
    summary: ImportSummary,
    shard_bytes: int,
) -> None:
    """Write what is new, and publish what was written however it ends."""
    committed = writer.committed()
    failed = writer.quarantined()
    try:
        changed = _changed(source, spec, committed, failed, summary)
        for number, shard in enumerate(_in_shards(changed, shard_bytes)):
            writer.write_shard(number, shard)
            summary.new += len(shard)
            summary.bytes += sum(one.hidden_states.nbytes for one in shard)
    finally:
        if committed or summary.new:
            writer.quarantine(failed.values())
            writer.publish(manifest)
    if not committed and not summary.new:
        first = summary.quarantined[0]
        raise PipelineError(
            f"none of the {len(summary.quarantined)} features in {source.path} can be imported "
            f"({first.id!r}: {first.detail})"
        )


def _changed(
    source: Source,
    spec: EntrySpec,
    committed: Mapping[str, str],
    failed: dict[str, Quarantined],
    summary: ImportSummary,
) -> Iterator[UtteranceFeatures]:
    """Read all features, and yield those that the entry does not hold as they are."""
    with progress(len(source.features), "importing", "utterance") as bar:
        for one in source.features:
            bar.update()
            array = None
            try:
                array = one.load()
                array = as_stored(hidden_states(array), spec)
            except UnusableError as error:
                bad = None if array is None else hash_of(array)
                failed[one.id] = Quarantined(one.id, bad, error.reason, error.detail)
                summary.quarantined.append(failed[one.id])
                continue
            failed.pop(one.id, None)
            content_hash = hash_of(array)
            if committed.get(one.id) == content_hash:
                summary.present += 1
            else:
                yield UtteranceFeatures(one.id, content_hash, array)


def _in_shards(
    features: Iterable[UtteranceFeatures], most: int
) -> Iterator[list[UtteranceFeatures]]:
    """Gather features until they have ``most`` bytes; one with more is a shard by itself."""
    shard: list[UtteranceFeatures] = []
    size = 0
    for one in features:
        if shard and size + one.hidden_states.nbytes > most:
            yield shard
            shard, size = [], 0
        shard.append(one)
        size += one.hidden_states.nbytes
    if shard:
        yield shard
