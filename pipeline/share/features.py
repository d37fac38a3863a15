"""Push the features of an entry to the Hugging Face hub, and pull them into a cache.

Features can give away who spoke and what was said, so the user must state that the licence of the
corpus lets them be passed on, and name the licence. Shards are named by a hash of their content:
those that the cache has are not fetched, and those that are fetched are verified before a reader
sees them.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...cache import CacheError, Entry, verify
from ...cache.identity import EntrySpec
from ...cache.scale import FILE as SCALE
from ...cache.scale_file import keep_scale, scale_for_reading
from ...cache.shard import NAME
from ...cache.storage.local import LocalFolder
from ..corpora.manifest import from_table
from ..errors import PipelineError, UsageError
from ..feature_cache import FeatureCache
from .heads import Pushed
from .hub import hub
from .licences import LICENCES

_RECORD, _CORPUS = "entry.json", "corpus.parquet"
_KIND = "dataset"


@dataclass(frozen=True)
class PulledFeatures:
    """The entries that were pulled: folder → shards that were fetched, and shards in all."""

    cache: str
    entries: Mapping[str, tuple[int, int]]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        entries = [
            {"entry": name, "fetched": fetched, "shards": shards}
            for name, (fetched, shards) in self.entries.items()
        ]
        return {"cache": self.cache, "entries": entries}

    def __str__(self) -> str:
        """Return a line for each entry."""
        return "\n".join(
            f"{self.cache}/{name}: {fetched} of {shards} shards fetched, the others were here"
            for name, (fetched, shards) in self.entries.items()
        )


def push_features(
    cache: FeatureCache,
    entry: Entry,
    repo: str,
    *,
    license: str | None,  # noqa: A002 -- the hub's own name
    i_may_share: bool,
    private: bool = True,
) -> Pushed:
    """Write the features of an entry into a dataset repository of the hub.

    Its corpus table goes with it, without paths of clips outside the corpus. The records of the
    extractions, which name hosts and users, and the quarantine stay here.

    Args:
        cache: the cache.
        entry: an entry of it.
        repo: ``OWNER/NAME``; it is created if it does not exist.
        license: the licence of the corpus, by the hub's name for it.
        i_may_share: the user states that this licence lets the features be passed on.
        private: whether a new repository is private.

    Raises:
        UsageError: the statement or the licence is missing, the licence of the corpus forbids it,
            the cache is in an object store, or the hub refuses.
        PipelineError: the hub cannot be reached.
    """
    dataset = entry.spec.dataset
    known = LICENCES.get(dataset)
    if known is not None and known.forbids_sharing:
        raise UsageError(
            f"the features of {dataset} may not be pushed: {known.terms}; share the head alone, "
            "with 'mser push'"
        )
    if not (i_may_share and license):
        raise UsageError(
            "features can give away who spoke and what was said: if the licence of "
            f"{dataset} lets you pass them on, give --i-may-share and --license NAME"
        )
    if not isinstance(entry.folder, LocalFolder):
        raise UsageError(f"{entry.folder} is in an object store: push from a cache in a folder")
    table = _without_foreign_paths(cache.read_manifest(dataset, entry.manifest))
    shards = entry.index.shards()
    with hub(repo) as api, TemporaryDirectory() as temporary:
        from huggingface_hub import CommitOperationAdd  # noqa: PLC0415

        corpus = Path(temporary) / _CORPUS
        pq.write_table(table, corpus)
        files: dict[str, bytes | Path] = {
            "README.md": _card(entry.spec, license, len(entry)).encode(),
            f"{entry.spec.folder}/{_RECORD}": _json(asdict(entry.spec)),
            f"{entry.spec.folder}/{_CORPUS}": corpus,
        }
        if entry.scale:
            files[f"{entry.spec.folder}/{SCALE}"] = entry.scale.to_bytes()
        for path in _files(entry.folder.at / "shards" / shard for shard in shards):
            name = path.relative_to(entry.folder.at).as_posix()
            files[f"{entry.spec.folder}/{name}"] = path
        url = api.create_repo(repo, private=private, exist_ok=True, repo_type=_KIND)
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        title = f"Add {entry.spec.modality} features of {dataset}"
        api.create_commit(repo, operations, commit_message=title, repo_type=_KIND)
    return Pushed(repo, str(url), tuple(sorted(files)))


def pull_features(cache: FeatureCache, repo: str, *, revision: str | None = None) -> PulledFeatures:
    """Add all entries of a dataset repository of the hub to a cache.

    Args:
        cache: the cache; entries that it has get the shards that they lack.
        repo: ``OWNER/NAME``.
        revision: a branch, a tag or a commit; by default the newest.

    Raises:
        UsageError: the repository holds no features that mser pushed, the cache is in an object
            store, or the hub refuses.
        PipelineError: a file is damaged, or the hub cannot be reached.
    """
    if not isinstance(cache.root, LocalFolder):
        raise UsageError(f"{cache.root} is an object store: pull into a cache in a folder")
    cache.root.make()
    pulled: dict[str, tuple[int, int]] = {}
    with TemporaryDirectory(dir=cache.root.at, prefix=".pull-") as temporary:
        fetched = FeatureCache(temporary)
        with hub(repo) as api:
            names = api.list_repo_files(repo, repo_type=_KIND, revision=revision)
            prefixes = [name.removesuffix(f"/{_RECORD}") for name in names if _is_record(name)]
            options = {"repo_type": _KIND, "revision": revision, "local_dir": temporary}
            first = (_RECORD, _CORPUS, SCALE)
            described = [f"{prefix}/{name}" for prefix in prefixes for name in first]
            if prefixes:
                api.snapshot_download(repo, allow_patterns=described, **options)
            for prefix in prefixes:
                spec, table = _description(Path(temporary) / prefix, prefix, repo)
                own = cache.existing(spec).shards()
                shards = _shards(names, prefix)
                missing = [shard for shard in shards if shard not in own]
                wanted = [n for n in names if _shard_of(n, prefix) in missing]
                if wanted:
                    api.snapshot_download(repo, allow_patterns=wanted, **options)
                _add(cache, fetched, spec, table, missing, repo)
                pulled[spec.folder] = len(missing), len(shards)
    if not pulled:
        raise UsageError(f"'{repo}' holds no features that mser pushed")
    return PulledFeatures(str(cache.root), pulled)


def _add(
    cache: FeatureCache,
    fetched: FeatureCache,
    spec: EntrySpec,
    table: pa.Table,
    shards: Iterable[str],
    repo: str,
) -> None:
    """Verify the shards that were fetched, and publish them in the cache."""
    built = fetched.writer(spec, {})
    if built.lacks_scale:
        raise PipelineError(f"'{repo}' lacks {SCALE}: ask its owner to push again")
    built.publish()
    result = verify(built.folder)
    if result.damage or result.unread or set(built.shards()) != set(shards):
        what = result.damage[0].what if result.damage else "a shard"
        raise PipelineError(f"'{repo}' is damaged ({what}): ask its owner to push again")
    writer = cache.writer(spec, {})
    scale = scale_for_reading(built.folder, spec)
    if scale and keep_scale(writer.folder, spec, scale).digest != scale.digest:
        raise UsageError(
            f"{writer.folder} was calibrated on other utterances than the features in '{repo}': "
            "pull them into another cache"
        )
    target, source = writer.folder / "shards", built.folder / "shards"
    assert isinstance(source, LocalFolder)  # noqa: S101 -- it is below a temporary folder
    for shard in shards:
        target.commit(source.at / shard, shard)
    writer.publish(cache.write_manifest(spec.dataset, table))


def _description(folder: Path, prefix: str, repo: str) -> tuple[EntrySpec, pa.Table]:
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        spec = EntrySpec(**{**record, "layers": tuple(record["layers"])}).checked()
        if spec.folder != prefix:
            raise ValueError(f"{_RECORD} is of {spec.folder}")
        table = pq.ParquetFile(folder / _CORPUS).read(use_threads=False)
        from_table(table)
        for name in (_RECORD, _CORPUS):
            (folder / name).unlink()
        return spec, table
    except (OSError, KeyError, TypeError, ValueError, CacheError, pa.ArrowException) as error:
        raise PipelineError(
            f"'{repo}' is damaged ({prefix}: {error}): ask its owner to push again"
        ) from error


def _is_record(name: str) -> bool:
    parts = PurePosixPath(name).parts
    plain = all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", part) for part in parts)
    return len(parts) == 3 and parts[2] == _RECORD and plain


def _shard_of(name: str, prefix: str) -> str | None:
    """Return the shard to which a file of the repository belongs."""
    parts = PurePosixPath(name.removeprefix(f"{prefix}/shards/")).parts
    inside = name.startswith(f"{prefix}/shards/") and ".." not in parts
    return parts[0] if inside and NAME.fullmatch(parts[0]) else None


def _shards(names: Iterable[str], prefix: str) -> list[str]:
    return sorted({shard for name in names if (shard := _shard_of(name, prefix))})


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        yield from sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _without_foreign_paths(table: pa.Table) -> pa.Table:
    """Return a corpus table without the paths of clips that are not below the corpus."""
    column = table.column_names.index("audio")
    paths = [p if p and not Path(p).is_absolute() else None for p in table["audio"].to_pylist()]
    return table.set_column(column, table.schema.field("audio"), pa.array(paths, pa.string()))


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _card(spec: EntrySpec, license_: str, count: int) -> str:
    return f"""---
license: {json.dumps(license_)}
tags: [mser, speech-emotion-recognition]
viewer: false
---

# {spec.modality} features of {spec.dataset}

Hidden states of the frozen encoder {spec.encoder} (hash of the weights: \
{spec.identity.get("weights", "–")}) for {count} utterances, layers \
{", ".join(map(str, spec.layers))}, {spec.dim} wide, {spec.dtype}; and the table of the \
corpus with its texts and labels. Key: {spec.key}.

```sh
mser cache pull OWNER/NAME
mser train-head --dataset {spec.dataset} --head linear
```

Who pushed this stated that the licence of the corpus, {license_}, lets it be passed on.

Written by mser {version("mser")}.
"""
