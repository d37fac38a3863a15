"""How long a command takes to start, and from the command to its work.

Each measurement is a new process, with all bytecode and libraries in the page cache.

Run it with ``python benchmarks/start.py`` or ``python -m mser.benchmarks.start``.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from mser.benchmarks.results import (
    Measurement,
    Plot,
    Rows,
    RunOptions,
    Table,
    main,
    quartiles,
    ratios,
    shuffled_turns,
)
from mser.benchmarks.start_work import Work

MSER = "from mser.cli import main; main()"
PYTHON, HELP, TORCH = "Python alone", "mser --help", "import torch"
WARM = "the same extraction, workers and imports are ready"
TO_HBF = "mser train-head --head hbf, to the end of its first epoch"
HBF = "the first epoch of hbf itself"
TO_LINEAR = "mser train-head --head linear, to its first strength"
COMPILER = "import torch, torch._dynamo"
COMMANDS = {
    PYTHON: ["pass"],
    HELP: [MSER, "--help"],
    "mser extract --help": [MSER, "extract", "--help"],
    "mser train-head --help": [MSER, "train-head", "--help"],
    "mser cache ls, of a cache that does not exist": [MSER, "cache", "ls", "--cache", "/nowhere"],
    "mser extract, of a corpus that does not exist": [MSER, "extract", "--dataset", "syntetic"],
    "import mser": ["import mser"],
    TORCH: ["import torch"],
    COMPILER: ["import torch, torch._dynamo"],
    "import torch, transformers": ["import torch, transformers"],
    "import torch, torchaudio, transformers, dask.distributed": [
        "import torch, torchaudio, transformers, dask.distributed"
    ],
}
NOTE = (
    "Seconds from the start of a process to its end. `mser extract` and `mser train-head` import "
    "PyTorch, transformers and Dask only when they have work to do. A name that does not exist is "
    "refused before PyTorch is imported."
)
WORK_NOTE = (
    "Seconds from the start of a process to its end, or to the first line in the log of the first "
    "training; the epoch itself by that log. The extraction is of one minute of a **synthetic** "
    "corpus, by small random encoders of speech and of text; the training is on the 320 "
    "**synthetic** utterances of the demo. The difference of the two extractions is what the start "
    "costs: the imports of this process, the start of the workers, whose fork server imports at "
    "the same time, and the loading of the encoders."
)


def seconds(command: list[str]) -> float:
    """Run Python with these arguments; return the seconds of the whole process."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", *command], check=False, capture_output=True)
    return time.perf_counter() - begin


def measure(options: RunOptions) -> Measurement:
    for command in COMMANDS.values():
        seconds(command)  # fills the page cache
    processes = {name: lambda c=command: seconds(c) for name, command in COMMANDS.items()}
    tables = []
    if options.includes("processes"):
        rows = _rows(processes, options.rounds, HELP)
        tables.append(Table("start of a process", rows, NOTE, Plot("seconds")))
    if options.includes("work"):
        with (
            tempfile.TemporaryDirectory(dir=options.folder) as folder,
            closing(Work(Path(folder), options.device.type)) as work,
        ):
            methods = {
                TORCH: processes[TORCH],
                WARM: work.warm_extraction,
                "mser extract, as typed": work.extraction,
                TO_HBF: lambda: work.to_first_epoch("hbf"),
                HBF: lambda: work.first_epoch("hbf"),
                TO_LINEAR: lambda: work.to_first_epoch("linear"),
            }
            rows = _rows(methods, options.rounds, TORCH)
        tables.append(Table("from the command to its work", rows, WORK_NOTE, Plot("seconds")))
    return Measurement(tables, {})


def _rows(methods: Mapping[str, Callable[[], float]], rounds: int, unit: str) -> Rows:
    measured: dict[str, list[float]] = {name: [] for name in methods}
    for _, name in shuffled_turns([*methods], rounds):
        measured[name].append(methods[name]())
    return {
        name: {"seconds": quartiles(values), f"seconds ÷ {unit}": ratios(values, measured[unit])}
        for name, values in measured.items()
    }


if __name__ == "__main__":
    main("start", "How long a command takes to start.", measure, (15, 3), ["processes", "work"])
