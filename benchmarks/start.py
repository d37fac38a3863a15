"""How long a command takes before it does anything, beside what it need not import for that.

Each is a fresh process, with all bytecode and libraries in the page cache.

Run it with ``python benchmarks/start.py`` or ``python -m mser.benchmarks.start``.
"""

import subprocess
import sys
import time

from mser.benchmarks.results import Asked, Found, Plot, Rows, Table, main, quartiles, ratios, turns

MSER = "from mser.cli import main; main()"
PYTHON, HELP = "Python alone", "mser --help"
COMMANDS = {
    PYTHON: ["pass"],
    HELP: [MSER, "--help"],
    "mser extract --help": [MSER, "extract", "--help"],
    "mser train-head --help": [MSER, "train-head", "--help"],
    "mser cache ls, of a cache that is not there": [MSER, "cache", "ls", "--cache", "/nowhere"],
    "import mser": ["import mser"],
    "import torch": ["import torch"],
    "import torch, transformers": ["import torch, transformers"],
    "import torch, torchaudio, transformers, dask.distributed": [
        "import torch, torchaudio, transformers, dask.distributed"
    ],
}
NOTE = (
    "Seconds of a whole process, from its start to its end. An extraction and a training import "
    "PyTorch, transformers and Dask once they know that they will be needed."
)


def seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", *command], check=False, capture_output=True)
    return time.perf_counter() - begin


def measure(asked: Asked) -> Found:
    for command in COMMANDS.values():
        seconds(command)  # which fills the page cache
    took: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _, name in turns([*COMMANDS], asked.rounds):
        took[name].append(seconds(COMMANDS[name]))
    rows: Rows = {
        name: {"seconds": quartiles(values), f"× {HELP}": ratios(values, took[HELP])}
        for name, values in took.items()
    }
    return Found([Table("start of a process", rows, NOTE, Plot("seconds"))], {})


if __name__ == "__main__":
    main("start", "How long a command takes to start.", measure, rounds=(15, 3))
