"""The methods to extract a corpus that are compared, each with the processes that it needs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from mser.benchmarks.extract_mser import WarmExtraction, command_seconds, stored_errors
from mser.benchmarks.forward_passes import Batching, ForwardPasses, Job
from mser.benchmarks.frame_errors import States
from mser.benchmarks.persistent_process import PersistentProcess
from mser.pipeline.compute.device import cores
from mser.pipeline.compute.fork_server import MALLOC_ENVIRONMENT

MSER, FLOAT32, COMMAND = "mser", "mser, stored as float32", "mser, whole command"
PER_CORE = "transformers, one at a time, one process per core"
PER_CORE_MEMORY = "transformers, the same, glibc keeps freed memory"
ONE_PROCESS = "transformers, one at a time, one process"
BATCH = 8

Seconds = Callable[[Sequence[str]], float]
Errors = Callable[[Sequence[str]], dict[str, States]]


@dataclass(frozen=True)
class ExtractMethod:
    """A method; both functions take the modalities."""

    seconds: Seconds
    """Extracts the corpus and returns the time."""
    errors: Errors
    """Returns the errors of the features, by modality."""
    modalities: tuple[str, ...] = ("speech", "text")
    """The modalities that the method can extract."""


class ExtractMethods:
    """All methods whose toolkit runs here; ``missing`` names the other toolkits and the reasons."""

    def __init__(self, job: Job, processes: ExitStack) -> None:
        self.job, self.missing = job, dict[str, str]()
        start = partial(_start, processes, job)
        per_core = [start("transformers") for _ in range(cores())]
        # The variable changes how glibc frees memory, which does not concern passes on a GPU.
        keeping = [
            start("transformers", MALLOC_ENVIRONMENT) for _ in per_core if job.device == "cpu"
        ]
        toolkits = {name: start(name) for name in ("s3prl", "SpeechBrain")}
        self.corpus_size = per_core[0].call("save_reference").result()
        # mser starts after the others, which load their encoders meanwhile.
        mser = processes.enter_context(PersistentProcess(WarmExtraction, job))
        padded, by_length = Batching(BATCH), Batching(BATCH, by_length=True)
        alone = Batching(by_length=True)
        self.all = {
            MSER: _mser(mser, "float16"),
            FLOAT32: _mser(mser, "float32"),
            COMMAND: _command(job),
            PER_CORE: _passes(per_core, alone),
            **({PER_CORE_MEMORY: _passes(keeping, alone)} if keeping else {}),
            ONE_PROCESS: _passes(per_core[:1], Batching()),
            f"transformers, padded batches of {BATCH}": _passes(per_core[:1], padded),
            f"transformers, padded batches of {BATCH}, sorted by length": _passes(
                per_core[:1], by_length
            ),
        }
        for name, process in toolkits.items():
            if error := process.made.exception():
                self.missing[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                continue
            for suffix, batching in (("", padded), (", sorted by length", by_length)):
                method = _passes([process], batching, ("speech",))
                self.all[f"{name}, padded batches of {BATCH}{suffix}"] = method

    def for_modalities(self, modalities: Sequence[str]) -> dict[str, ExtractMethod]:
        """Return the methods that can extract all these modalities."""
        return {
            name: method
            for name, method in self.all.items()
            if {*modalities} <= {*method.modalities}
        }


@contextmanager
def started_methods(job: Job) -> Iterator[ExtractMethods]:
    """Start the processes of all methods; stop them at the end."""
    with ExitStack() as processes:
        yield ExtractMethods(job, processes)


def _start(
    processes: ExitStack, job: Job, toolkit: str, environment: Mapping[str, str] | None = None
) -> PersistentProcess:
    process = PersistentProcess(ForwardPasses, job, toolkit, environment=environment or {})
    return processes.enter_context(process)


def _passes(
    processes: Sequence[PersistentProcess],
    batching: Batching,
    modalities: tuple[str, ...] = ("speech", "text"),
) -> ExtractMethod:
    """Encode in these processes, which share the utterances and the cores equally."""
    count = len(processes)
    shares = [Batching(batching.size, batching.by_length, part, count) for part in range(count)]
    threads = max(1, cores() // count)

    def seconds(modalities: Sequence[str]) -> float:
        pairs = zip(processes, shares, strict=True)
        calls = [process.call("seconds", modalities, share, threads) for process, share in pairs]
        return max(float(call.result()) for call in calls)

    def errors(modalities: Sequence[str]) -> dict[str, States]:
        pairs = zip(processes, shares, strict=True)
        calls = [process.call("errors", modalities, share, threads) for process, share in pairs]
        parts = [call.result() for call in calls]
        return {name: np.concatenate([part[name] for part in parts]) for name in modalities}

    return ExtractMethod(seconds, errors, modalities)


def _mser(process: PersistentProcess, dtype: str) -> ExtractMethod:
    return ExtractMethod(
        lambda modalities: float(process.call("seconds", modalities, dtype).result()),
        lambda modalities: dict(process.call("errors", modalities, dtype).result()),
    )


def _command(job: Job) -> ExtractMethod:
    """Run the whole command; the errors are those of the features that its last run wrote."""
    cache = job.work / "command"
    return ExtractMethod(
        lambda modalities: command_seconds(job, cache, modalities),
        lambda modalities: stored_errors(job, cache, modalities),
    )
