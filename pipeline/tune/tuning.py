"""The result of a search: its best settings as a preset, and its course as a table."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w

from ...cache.storage.local import LocalFolder
from ..evaluation.scorers import metric_named, rank
from ..train.run import Run
from .ranges import Ranges, as_text
from .trials import TrialRecord

BEST, SUMMARY = "best.toml", "summary.md"
_NOTE = (
    "The settings were chosen once for all folds. Where a validation utterance of one fold is a "
    "test utterance of another, the test scores of the best trial are somewhat too high."
)


@dataclass(frozen=True)
class Tuning:
    """A search; ``run`` is the last training with the best settings, ``None`` without one."""

    path: Path
    preset: str
    monitor: str
    ranges: Ranges
    trials: tuple[TrialRecord, ...]
    run: Run | None

    @property
    def best(self) -> TrialRecord:
        """The trial with the best score; the first of equal ones."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        return max(complete, key=lambda trial: rank(self.monitor, trial.score or 0.0))

    def __str__(self) -> str:
        """Return the best settings beside those of the preset, and the scores of the last run."""
        best, first = self.best, self.trials[0]
        counts = {s: sum(t.state == s for t in self.trials) for s in ("pruned", "failed")}
        of_them = "".join(f", {count} {state}" for state, count in counts.items() if count)
        lines = [
            f"{len(self.trials)} trials{of_them}; {self._title} on the validation parts, mean over "
            f"{len(best.folds)} fold{'s' if len(best.folds) > 1 else ''}:",
            f"  {self._shown(first.score)}  trial 0, the settings of {self.preset}",
            f"  {self._shown(best.score)}  trial {best.number}, the best",
            *(f"    {name} = {_value(value)}" for name, value in best.values.items()),
            f"  {self.path / BEST}",
            f"  {self.path / SUMMARY}",
        ]
        if self.run is None:
            return "\n".join([*lines, "  the test parts were not read"])
        return "\n".join([*lines, f"  note: {_NOTE}", str(self.run)])

    def as_json(self) -> dict[str, Any]:
        """Return the search as JSON values."""
        return {
            "path": str(self.path),
            "preset": self.preset,
            "monitor": self.monitor,
            "ranges": {name: as_text(distribution) for name, distribution in self.ranges.items()},
            "best": self.best.number,
            "trials": [asdict(trial) for trial in self.trials],
            "run": None if self.run is None else self.run.as_json(),
        }

    def write(self, values: Mapping[str, Any]) -> None:
        """Write ``best.toml`` with these settings, which is a preset, and ``summary.md``."""
        folder = LocalFolder(self.path)
        folder.write(BEST, self._preset(values).encode())
        folder.write(SUMMARY, self.markdown().encode())

    def markdown(self) -> str:
        """Return the course of the search in Markdown."""
        names = list(self.ranges)
        lines = [
            f"# Search from the preset {self.preset}",
            "",
            f"Score: {self._title} of the best epoch on the validation part, mean over the folds, "
            f"first seed. No test part was read during the search. {_NOTE}",
            "",
            *(f"- `{name}`: {as_text(distribution)}" for name, distribution in self.ranges.items()),
            "",
            f"| trial | score | best so far | {' | '.join(names)} | |",
            f"|---:|---:|---:|{'---:|' * len(names)}---|",
        ]
        best: float | None = None
        for trial in self.trials:
            if trial.state == "complete" and trial.score is not None:
                seen = [trial.score] if best is None else [best, trial.score]
                best = max(seen, key=partial(rank, self.monitor))
            cells = [_value(trial.values.get(name)) for name in names]
            note = trial.reason or ("" if trial.state == "complete" else trial.state)
            note = "the preset" if trial.number == 0 else note.replace("|", "\\|")
            scores = f"{self._shown(trial.score)} | {self._shown(best)}"
            lines.append(f"| {trial.number} | {scores} | {' | '.join(cells)} | {note} |")
        test = [] if self.run is None else ["", "```", str(self.run), "```"]
        return "\n".join([*lines, *test, ""])

    @property
    def _title(self) -> str:
        metric = metric_named(self.monitor)
        if metric is None:
            return self.monitor
        return f"{metric.title} in %" if metric.percent else metric.title

    def _shown(self, score: float | None) -> str:
        if score is None:
            return "–"
        metric = metric_named(self.monitor)
        return f"{100 * score:.2f}" if metric and metric.percent else f"{score:.4f}"

    def _preset(self, values: Mapping[str, Any]) -> str:
        table: dict[str, Any] = {}
        options: dict[str, Any] = {}
        for name, value in values.items():
            option = name.removeprefix("head.")
            held = list(value) if isinstance(value, tuple) else value
            (table if option == name else options)[option] = held
        comment = (
            f"# The best of {len(self.trials)} trials of mser tune from the preset {self.preset}:\n"
            f"# {self._title} {self._shown(self.best.score)} on the validation parts, "
            f"{self._shown(self.trials[0].score)} with the preset.\n"
        )
        return comment + tomli_w.dumps(table | ({"head_options": options} if options else {}))


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
