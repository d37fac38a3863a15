"""How long a command takes to start, compared with imports that it does not need for that.

Each measurement is a new process, with all bytecode and libraries in the page cache.

Run it with ``python benchmarks/start.py`` or ``python -m mser.benchmarks.start``.
"""

import subprocess
import sys
import time

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

MSER = "from mser.cli import main; main()"
PYTHON, HELP = "Python alone", "mser --help"
COMMANDS = {
    PYTHON: ["pass"],
    HELP: [MSER, "--help"],
    "mser extract --help": [MSER, "extract", "--help"],
    "mser train-head --help": [MSER, "train-head", "--help"],
    "mser cache ls, of a cache that does not exist": [MSER, "cache", "ls", "--cache", "/nowhere"],
    "import mser": ["import mser"],
    "import torch": ["import torch"],
    "import torch, transformers": ["import torch, transformers"],
    "import torch, torchaudio, transformers, dask.distributed": [
        "import torch, torchaudio, transformers, dask.distributed"
    ],
}
NOTE = (
    "Seconds from the start of a process to its end. `mser extract` and `mser train-head` import "
    "PyTorch, transformers and Dask only when they have work to do."
)


def seconds(command: list[str]) -> float:
    """Run Python with these arguments; return the seconds of the whole process."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", *command], check=False, capture_output=True)
    return time.perf_counter() - begin


def measure(options: RunOptions) -> Measurement:
    for command in COMMANDS.values():
        seconds(command)  # fills the page cache
    measured: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _, name in shuffled_turns([*COMMANDS], options.rounds):
        measured[name].append(seconds(COMMANDS[name]))
    rows: Rows = {
        name: {"seconds": quartiles(values), f"seconds ÷ {HELP}": ratios(values, measured[HELP])}
        for name, values in measured.items()
    }
    return Measurement([Table("start of a process", rows, NOTE, Plot("seconds"))], {})


if __name__ == "__main__":
    main("start", "How long a command takes to start.", measure, rounds=(15, 3))
