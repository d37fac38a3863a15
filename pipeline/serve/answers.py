"""Predictions for the page: with everything that is given, and with each part left out."""

from collections.abc import Mapping
from threading import Lock
from typing import Any

from ..encoders import Encoder
from ..feature_cache import FeatureCache
from ..modalities import MODALITIES
from ..option_texts import path_of
from ..runs.evaluate import settings_of_run
from ..runs.predict import Prediction, encoder_of_entry, predict
from ..train.run_folder import RunFolder
from ..train.speaker_normalisation import require_one_clip_is_enough


class Answers:
    """The predictions of one run, whose encoders stay in memory.

    Args:
        run: the folder of a finished run, or the run.
        encoders: see :func:`predict`.
        cache: see :func:`predict`.
        device: see :func:`predict`.
        head: see :func:`predict`.

    Raises:
        UsageError, CacheError: see :func:`predict`.
    """

    def __init__(
        self,
        run: Any,
        *,
        encoders: Mapping[str, str | None] | None = None,
        cache: Any = None,
        device: str = "auto",
        head: str | None = None,
    ) -> None:
        self.run = path_of(run)
        folder = RunFolder(self.run)
        self.metrics: dict[str, Any] = folder.read_json("metrics.json")
        settings, _ = settings_of_run(self.run, folder.config(), cache, device, head)
        require_one_clip_is_enough(self.run, settings.speaker_normalisation)
        features, named = FeatureCache(settings.cache), encoders or {}
        loaded: dict[str, Encoder[Any]] = {}
        for modality, key in settings.encoders.items():
            entry = features.open(settings.dataset, key, modality=modality)
            loaded[modality] = encoder_of_entry(entry, named.get(modality), device)
        read = {MODALITIES[modality].source for modality in loaded}
        self.sources = tuple(source for source in ("audio", "text") if source in read)
        """What the run can read of what the page gives: ``audio``, ``text`` or both."""
        self._options: dict[str, Any] = {
            "encoders": loaded,
            "cache": cache,
            "device": device,
            "head": head,
        }
        self._lock = Lock()  # the weights of one checkpoint at a time are in the head

    def answer(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the prediction as JSON values.

        Args:
            given: source → its content, a path or a text, at least one; the sources are some of
                :attr:`sources`.

        Returns:
            ``predicted``, ``probabilities`` (for each class the mean, the least and the largest
            over the checkpoints, the most probable first), ``checkpoints`` (their number),
            ``agree`` (how many predict the same), ``notes`` (without those of the run), and
            ``without``: for each source that is left out, what is predicted then, and by how much
            the probability of the first prediction falls; the largest fall first.

        Raises:
            UsageError, PipelineError, CacheError: see :func:`predict`.
        """
        with self._lock:
            whole = predict(self.run, **given, **self._options)
            left_out = {
                source: predict(
                    self.run, **{s: v for s, v in given.items() if s != source}, **self._options
                )
                for source in (given if len(given) > 1 else ())
            }
        winner = str(whole.winner)
        without: list[dict[str, Any]] = [
            {
                "source": source,
                "predicted": other.winner,
                "probability": other.probabilities[str(other.winner)],
                "fall": whole.probabilities[winner] - other.probabilities[winner],
            }
            for source, other in left_out.items()
        ]
        return {
            "predicted": winner,
            "probabilities": _spread(whole),
            "checkpoints": len(whole.checkpoints),
            "agree": sum(each.winner == winner for each in whole.checkpoints),
            "without": sorted(without, key=lambda part: -part["fall"]),
            "notes": [note for note in whole.notes if note not in self.metrics["notes"]],
        }


def _spread(prediction: Prediction) -> list[dict[str, Any]]:
    """Return mean, least and largest probability of each class, the most probable first."""
    ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])
    rows = []
    for name, mean in ranked:
        values = [each.probabilities[name] for each in prediction.checkpoints]
        rows.append({"class": name, "mean": mean, "low": min(values), "high": max(values)})
    return rows
