"""The ways to extract a corpus that are compared, each with the processes that it runs in."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from mser.benchmarks.extractions import Extraction, as_typed, stored_errors
from mser.benchmarks.frame_errors import States
from mser.benchmarks.held import Held
from mser.benchmarks.passes import Job, Order, Passes
from mser.pipeline.compute.dask_cluster import MALLOC_ENVIRONMENT
from mser.pipeline.compute.device import cores

OURS, FLOAT32, TYPED = "mser", "mser, float32 on the disk", "mser, as typed"
ALONE = "transformers, one at a time, a process a core"
KEPT = "transformers, the same, glibc keeping memory"
ONE = "transformers, one at a time, 1 process"
BATCH = 8

Seconds = Callable[[Sequence[str]], float]
Errors = Callable[[Sequence[str]], dict[str, States]]


@dataclass(frozen=True)
class Way:
    """Given the modalities it returns how long it takes, and the errors of what it makes."""

    seconds: Seconds
    errors: Errors
    modalities: tuple[str, ...] = ("speech", "text")


class Ways:
    """All ways whose toolkit is there; of the others ``missing`` says why they are not."""

    def __init__(self, job: Job, held: ExitStack) -> None:
        self.job, self.missing = job, dict[str, str]()
        start = partial(_start, held, job)
        bare = [start("transformers") for _ in range(cores())]
        # It changes how memory is freed, which a GPU's passes do not do.
        keeping = [start("transformers", MALLOC_ENVIRONMENT) for _ in bare if job.device == "cpu"]
        toolkits = {name: start(name) for name in ("s3prl", "SpeechBrain")}
        self.utterances = bare[0].begin("save_reference").result()
        ours = held.enter_context(Held(Extraction, job))  # when the others have been started
        padded, by_length = Order(BATCH), Order(BATCH, by_length=True)
        self.all = {
            OURS: _mser(ours, "float16"),
            FLOAT32: _mser(ours, "float32"),
            TYPED: _typed(job),
            ALONE: _passes(bare, Order(by_length=True)),
            **({KEPT: _passes(keeping, Order(by_length=True))} if keeping else {}),
            ONE: _passes(bare[:1], Order()),
            f"transformers, padded {BATCH}": _passes(bare[:1], padded),
            f"transformers, padded {BATCH}, by length": _passes(bare[:1], by_length),
        }
        for name, process in toolkits.items():
            if error := process.made.exception():
                self.missing[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                continue
            for how, order in (("", padded), (", by length", by_length)):
                way = _passes([process], order, ("speech",))
                self.all[f"{name}, padded {BATCH}{how}"] = way

    def of(self, modalities: Sequence[str]) -> dict[str, Way]:
        """Return those that can do these modalities."""
        return {name: way for name, way in self.all.items() if {*modalities} <= {*way.modalities}}


@contextmanager
def ways(job: Job) -> Iterator[Ways]:
    with ExitStack() as held:
        yield Ways(job, held)


def _start(
    held: ExitStack, job: Job, toolkit: str, environment: Mapping[str, str] | None = None
) -> Held:
    return held.enter_context(Held(Passes, job, toolkit, environment=environment or {}))


def _passes(
    processes: Sequence[Held], order: Order, modalities: tuple[str, ...] = ("speech", "text")
) -> Way:
    """All the cores for one process, or one thread for each of as many processes."""
    count = len(processes)
    orders = [Order(order.size, order.by_length, part, count) for part in range(count)]
    threads = max(1, cores() // count)

    def seconds(modalities: Sequence[str]) -> float:
        pairs = zip(processes, orders, strict=True)
        begun = [one.begin("seconds", modalities, its, threads) for one, its in pairs]
        return max(float(one.result()) for one in begun)

    def errors(modalities: Sequence[str]) -> dict[str, States]:
        pairs = zip(processes, orders, strict=True)
        begun = [one.begin("errors", modalities, its, threads) for one, its in pairs]
        found = [one.result() for one in begun]
        return {name: np.concatenate([one[name] for one in found]) for name in modalities}

    return Way(seconds, errors, modalities)


def _mser(process: Held, dtype: str) -> Way:
    return Way(
        lambda modalities: float(process.begin("seconds", modalities, dtype).result()),
        lambda modalities: dict(process.begin("errors", modalities, dtype).result()),
    )


def _typed(job: Job) -> Way:
    """Its errors are those of what its last run wrote."""
    cache = job.work / "as typed"
    return Way(
        lambda modalities: as_typed(job, cache, modalities),
        lambda modalities: stored_errors(job, cache, modalities),
    )
