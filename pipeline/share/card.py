"""The model card of a head: what it was trained on and how, its scores, and its limits."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from ...cache.identity import EntrySpec
from ..evaluation.groups import counted_groups
from ..evaluation.registry import METRICS
from .licences import LICENCES, UNKNOWN

_NOT_SETTINGS = ("cache", "encoders", "digest", "format", "mser", "device", "plugins", "seeds")
_SAID_BEFORE = ("head", "dataset", "protocol", "head_options")


def model_card(
    repo: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    specs: Sequence[EntrySpec],
    license_: str,
) -> str:
    """Return the card of a run in Markdown, with the front matter that the hub reads.

    Args:
        repo: the name of the repository.
        config: the content of ``config.toml``.
        metrics: the content of ``metrics.json``.
        specs: the identities of the entries of the features.
        license_: the licence of the head, by the hub's name for it.
    """
    options = {f"head.{name}": value for name, value in config["head_options"].items()}
    settings = {k: v for k, v in config.items() if k not in (*_NOT_SETTINGS, *_SAID_BEFORE)}
    environment = Environment(  # noqa: S701 -- Markdown, not HTML
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = files(__package__ or "").joinpath("card.md.jinja").read_text(encoding="utf-8")
    trainings = metrics["folds"]
    return environment.from_string(template).render(
        repo=repo,
        license=license_,
        head=metrics["head"],
        dataset=metrics["dataset"],
        terms=LICENCES.get(metrics["dataset"], UNKNOWN).terms,
        classes=metrics["classes"],
        protocol=metrics["protocol"],
        selected_by=metrics["selected_by"],
        test_utterances=metrics["test_utterances"],
        notes=[note.rstrip(".") for note in metrics["notes"]],
        drawn=counted_groups(metrics.get("intervals")),
        trainings=len(trainings),
        folds=len({fold["fold"] for fold in trainings}),
        seeds=sorted({fold["seed"] for fold in trainings}),
        scores=[_score(name, metrics) for name in METRICS if name in metrics["aggregate"]],
        encoders=[_encoder(spec) for spec in specs],
        base_models=[spec.encoder for spec in specs if spec.encoder.count("/") == 1],
        settings=settings | options,
        version=version("mser"),
    )


def _encoder(spec: EntrySpec) -> dict[str, Any]:
    return {
        "modality": spec.modality,
        "name": spec.encoder,
        "weights": spec.identity.get("weights", "–"),
        "layers": ", ".join(map(str, spec.layers)),
        "dtype": spec.dtype,
        "key": spec.key,
    }


def _score(name: str, metrics: Mapping[str, Any]) -> dict[str, str]:
    scored = metrics["aggregate"][name]
    bounds = scored["pooled_ci95"]
    std = "" if scored["std"] is None else f" ± {100 * scored['std']:.1f}"
    return {
        "title": METRICS[name].title,
        "pooled": f"{100 * scored['pooled']:.1f}",
        "interval": " – ".join(f"{100 * bound:.1f}" for bound in bounds) if bounds else "–",
        "mean": f"{100 * scored['mean']:.1f}{std}",
        "chance": f"{100 * metrics['chance'][name]['mean']:.1f}",
    }
