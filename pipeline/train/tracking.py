"""Send the lines of ``log.jsonl`` to TensorBoard, Trackio or Weights & Biases as well.

None of the three is a dependency, and none changes a number of a run: they get what the log gets.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from ..errors import needs_extra

_PROJECT = "mser"


class _Tracker(Protocol):
    def log(self, epoch: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class _TensorBoard:
    """Event files below ``tensorboard/`` in the run folder, a folder for each training."""

    def __init__(self, run: Path, training: str, _: Mapping[str, Any], epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

        # Epochs that were logged after the saved state are trained again: forget their values.
        folder = str(run / "tensorboard" / training)
        self.writer: Any = SummaryWriter(folder, purge_step=epoch)

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    """A run of Weights & Biases for each training, in a group for the run folder."""

    package = "wandb"

    def __init__(self, run: Path, training: str, config: Mapping[str, Any], _: int) -> None:
        name = f"{run.name}/{training}"
        self.module: Any = import_module(self.package)
        self.module.init(
            project=_PROJECT,
            name=name,
            group=run.name,
            config=dict(config),
            resume="allow",
            **self.options(f"{run.absolute()}/{training}"),
        )

    def options(self, place: str) -> dict[str, Any]:
        """Return what lets an interrupted training continue its curves."""
        return {"id": sha256(place.encode()).hexdigest()[:16]}

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        self.module.log(dict(values), step=epoch)

    def close(self) -> None:
        self.module.finish()


class _Trackio(_Wandb):
    """The same in Trackio, which keeps its files on this machine; a run continues by its name."""

    package = "trackio"

    def options(self, place: str) -> dict[str, Any]:
        return {}


_TRACKERS: Mapping[str, Callable[[Path, str, Mapping[str, Any], int], _Tracker]] = {
    "tensorboard": _TensorBoard,
    "trackio": _Trackio,
    "wandb": _Wandb,
}
TRACKERS = tuple(_TRACKERS)
"""The names that ``--track`` knows; each is also the name of its package and of its extra."""


def require_trackers(names: Sequence[str]) -> None:
    """Import the packages of trackers, before anything is trained.

    Raises:
        UsageError: a package is not installed.
    """
    for name in names:
        with needs_extra(name, name):
            import_module(name)


@contextmanager
def tracking(
    names: Sequence[str], run: Path, training: str, config: Mapping[str, Any]
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function that takes each line of the log of a training.

    Args:
        names: of the trackers.
        run: the run folder.
        training: the name of the training, a fold and a seed.
        config: the settings of the run.
    """
    with ExitStack() as stack:
        trackers: list[_Tracker] = []

        def log(line: Mapping[str, Any]) -> None:
            epoch = int(line["epoch"])
            while len(trackers) < len(names):  # at the first line, which says where it continues
                trackers.append(_TRACKERS[names[len(trackers)]](run, training, config, epoch))
                stack.callback(trackers[-1].close)
            values = {k: v for k, v in _flat(line).items() if k not in ("fold", "seed", "epoch")}
            for tracker in trackers:
                tracker.log(epoch, values)

        yield log


def _flat(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``part/name`` → value of the tables in a line, and its other values."""
    flat: dict[str, Any] = {}
    for key, value in line.items():
        table = isinstance(value, Mapping)
        flat |= {f"{key}/{name}": each for name, each in value.items()} if table else {key: value}
    return flat
