"""Push the heads of a run to the Hugging Face hub, and pull them from there.

A repository holds the settings, the scores, the checkpoints in safetensors, and the identities of
the features: what :func:`mser.predict` needs. It holds no utterance id, label, path or host name.
"""

import json
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tomli_w
from safetensors import SafetensorError, safe_open

from ...cache.identity import EntrySpec
from ..errors import PipelineError, UsageError
from ..feature_cache import FeatureCache
from ..option_texts import path_of, place_of
from ..train.run import Run
from ..train.run_folder import RunFolder, cache_of_run, training_name
from .card import model_card
from .hub import hub

FEATURES = "features"
"""The folder in a pulled run that stands for the cache: entries without utterances."""
_ENCODERS = "encoders.json"
_FILES = ("README.md", "config.toml", "metrics.json", _ENCODERS)


@dataclass(frozen=True)
class Pushed:
    """What was pushed, and where it is."""

    repo: str
    url: str
    files: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the address and the number of files."""
        return f"{self.url}: {len(self.files)} files"


@dataclass(frozen=True)
class Pulled:
    """A pulled run: its folder, and what it is."""

    run: Path
    head: str
    dataset: str
    trainings: int

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "run": str(self.run)}

    def __str__(self) -> str:
        """Return the folder, and what it holds."""
        several = "" if self.trainings == 1 else "s"
        return (
            f"{self.run}: {self.head} on {self.dataset}, {self.trainings} checkpoint{several}; "
            f"use it with 'mser predict {self.run}'"
        )


def push(
    run: str | Path | Run,
    repo: str,
    *,
    license: str = "other",  # noqa: A002 -- the hub's own name
    private: bool = True,
    cache: Any = None,
) -> Pushed:
    """Write the heads of a finished run, with a model card, into a repository of the hub.

    Args:
        run: the folder of a finished run, or the run.
        repo: ``OWNER/NAME``; it is created if it does not exist.
        license: the licence of the head, by the hub's name for it.
        private: whether a new repository is private.
        cache: where the features of the run are now, if they have moved.

    Raises:
        UsageError: it is not a finished run, its features are imported, or the hub refuses.
        CacheError: the cache no longer holds the features.
        PipelineError: a checkpoint is missing, or the hub cannot be reached.
    """
    path = path_of(run)
    folder = RunFolder(path)
    config, metrics = folder.config(), folder.read_json("metrics.json")
    specs = _specs(path, config, cache)
    files: dict[str, bytes | Path] = {}
    for fold in metrics["folds"]:
        checkpoint = folder.checkpoint(fold["fold"], fold["seed"])
        _require_safetensors(checkpoint)
        files[f"checkpoints/{checkpoint.name}"] = checkpoint
    shared = {**config, "cache": FEATURES}
    files |= {
        "README.md": model_card(repo, config, metrics, specs, license).encode(),
        "config.toml": tomli_w.dumps(shared).encode(),
        "metrics.json": (json.dumps(metrics, indent=2, ensure_ascii=False) + "\n").encode(),
        _ENCODERS: (json.dumps([asdict(spec) for spec in specs], indent=2) + "\n").encode(),
    }
    with hub(repo) as api:
        from huggingface_hub import CommitOperationAdd  # noqa: PLC0415

        url = api.create_repo(repo, private=private, exist_ok=True)
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        title = f"Add {metrics['head']} on {metrics['dataset']}"
        api.create_commit(repo, operations, commit_message=title)
    return Pushed(repo, str(url), tuple(sorted(files)))


def pull(repo: str, out: str | Path, *, revision: str | None = None) -> Pulled:
    """Write the heads of a repository into a folder that :func:`mser.predict` takes as a run.

    Only settings, scores and safetensors are fetched, and nothing in them is executed. A head of a
    plug-in needs the user's consent when it is used, as in every run.

    Args:
        repo: ``OWNER/NAME``.
        out: the folder to write; it must not exist, or be empty.
        revision: a branch, a tag or a commit; by default the newest.

    Raises:
        UsageError: the folder exists, or the repository holds no head of mser.
        PipelineError: a file is missing or damaged, or the hub cannot be reached.
    """
    out = Path(out).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"'{out}' already exists: give the name of a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside the folder, so that the last step is a renaming: the folder is complete, or absent.
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
        fetched = Path(temporary) / "run"
        with hub(repo) as api:
            api.snapshot_download(
                repo,
                local_dir=fetched,
                revision=revision,
                allow_patterns=[*_FILES, "checkpoints/*.safetensors"],
            )
        shutil.rmtree(fetched / ".cache", ignore_errors=True)
        metrics = _completed(fetched, repo)
        if out.exists():
            out.rmdir()
        fetched.rename(out)
    return Pulled(out, str(metrics["head"]), str(metrics["dataset"]), len(metrics["folds"]))


def _specs(run: Path, config: Mapping[str, Any], cache: Any) -> list[EntrySpec]:
    """Return the identities of the features of a run."""
    features = FeatureCache(cache_of_run(run, config) if cache is None else place_of(cache))
    specs = [
        features.open(config["dataset"], str(encoder["key"]), modality=modality).spec
        for modality, encoder in config["encoders"].items()
    ]
    for spec in specs:
        if spec.identity.get("source") == "imported":
            raise UsageError(
                f"the {spec.modality} features of '{run}' were imported, so nobody could use its "
                "head on new clips: extract them with mser and train again"
            )
    return specs


def _completed(run: Path, repo: str) -> dict[str, Any]:
    """Check a fetched run, and add the entries that stand for its features.

    Raises:
        UsageError: it is no head of mser.
        PipelineError: a file is missing or damaged.
    """
    if missing := [name for name in _FILES if not (run / name).is_file()]:
        raise UsageError(
            f"'{repo}' holds no head that mser pushed: it has no {' and no '.join(missing)}"
        )
    try:
        config = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        records = json.loads((run / _ENCODERS).read_text(encoding="utf-8"))
        specs = [EntrySpec(**{**r, "layers": tuple(r["layers"])}).checked() for r in records]
        keys = {m: str(encoder["key"]) for m, encoder in config["encoders"].items()}
        if {spec.modality: spec.key for spec in specs} != keys or config["cache"] != FEATURES:
            raise ValueError(f"{_ENCODERS} and config.toml differ")
        if any(spec.dataset != config["dataset"] for spec in specs):
            raise ValueError("the datasets differ")
        names = [training_name(str(fold["fold"]), int(fold["seed"])) for fold in metrics["folds"]]
        if not names:
            raise ValueError("there is no training")
        _ = metrics["head"], metrics["dataset"], metrics["classes"], metrics["notes"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PipelineError(
            f"'{repo}' is damaged ({error}): ask its owner to push again"
        ) from error
    for name in names:
        _require_safetensors(run / "checkpoints" / f"{name}.safetensors", f"'{repo}': ")
    cache = FeatureCache(run / FEATURES)
    for spec in specs:
        cache.writer(spec, {}).publish()
    return dict(metrics)


def _require_safetensors(path: Path, where: str = "") -> None:
    """Raise an error unless a file is safetensors that can be read."""
    try:
        with safe_open(path, "pt") as file:
            _ = list(file.keys())
    except (OSError, SafetensorError) as error:
        raise PipelineError(
            f"{where}the checkpoint {path.name} is missing or is not safetensors"
        ) from error
