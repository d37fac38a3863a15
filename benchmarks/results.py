"""The results of a benchmark: tables, and everything their numbers depend on, as text and JSON."""

import argparse
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import quantiles
from typing import Any, TypeVar

import numpy as np
import psutil
import torch

from mser.pipeline.compute.device import chosen_device, cores

Value = float | str | list[float]  # a list holds the median, the first and the third quartile
Rows = dict[str, dict[str, Value]]
Name = TypeVar("Name")

_PACKAGES = ("mser", "torch", "transformers", "numpy", "zarr", "h5py", "pyarrow", "dask")


@dataclass(frozen=True)
class Plot:
    """How a table is drawn: one bar per row, or lines if ``x`` is given."""

    column: str
    """The column whose values are drawn."""
    log: bool = False
    """Logarithmic axes."""
    x: str | None = None
    """The column with the x values of lines; None draws bars."""
    by: str | None = None
    """The column that names the line of each row; None draws one line."""


@dataclass(frozen=True)
class Table:
    """Rows with the same columns."""

    title: str
    """Unique within the benchmark."""
    rows: Rows
    """Row name → column name → value."""
    note: str = ""
    """How the numbers were measured; printed under the table."""
    plot: Plot | None = None
    """How the table is drawn; None draws nothing."""

    def markdown(self) -> str:
        """Return the table in Markdown; quartiles are in brackets behind the median."""
        names = list(next(iter(self.rows.values())))
        lines = [["", *names], ["---"] + ["---:"] * len(names)]
        lines += [[row, *map(cell, values.values())] for row, values in self.rows.items()]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"**{self.title}**\n\n{table}" + (f"\n\n{self.note}" if self.note else "")


@dataclass(frozen=True)
class Results:
    """The results of one run of one script."""

    name: str
    """The script's name, without ``.py``."""
    command: str
    """The command line that repeats the run."""
    small: bool
    """Whether this was the small form (``--small``)."""
    date: str
    """The day of the run in UTC, as YYYY-MM-DD."""
    machine: Mapping[str, Any]
    """The hardware and the system: see :func:`machine`."""
    versions: Mapping[str, str]
    """Package → version."""
    settings: Mapping[str, Any]
    """The settings of the run."""
    tables: Sequence[Table]
    """The measurements."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """A peer or a measurement that is missing → the reason."""

    def markdown(self, pictures: Mapping[str, str] | None = None) -> str:
        """Return where and how it was measured, the tables, and what is missing.

        Args:
            pictures: title of a table → path of its picture.
        """
        small = ["**The small form**: it only shows that everything runs; its numbers are rough."]
        missing = [f"- Not measured: {name}: {reason}." for name, reason in self.missing.items()]
        facts = (
            f"`{self.command}`, {self.date}, {_listed(self.machine)}; {_listed(self.versions)}; "
            f"{_listed(self.settings)}."
        )
        parts, printed = [], {""}
        for table in self.tables:
            # A note that several tables share is printed once, under the first of them.
            note = "" if table.note in printed else table.note
            parts.append(replace(table, note=note).markdown())
            printed.add(table.note)
            if pictures and table.title in pictures:
                parts.append(f"![{table.title}]({pictures[table.title]})")
        if missing:
            parts.append("\n".join(missing))
        return "\n\n".join([*(small if self.small else []), facts, *parts])

    def save(self, folder: Path) -> Path:
        """Write the results as ``NAME.json`` into a folder; return the file."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", "utf-8")
        return path

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Read a file that :meth:`save` wrote."""
        values = json.loads(path.read_text("utf-8"))
        tables = [
            Table(**{**table, "plot": Plot(**table["plot"]) if table["plot"] else None})
            for table in values.pop("tables")
        ]
        return cls(**values, tables=tables)


@dataclass(frozen=True)
class RunOptions:
    """The options of a benchmark's command line."""

    small: bool
    """Measure the small form."""
    rounds: int
    """How often everything is measured; 2 or more if quartiles are taken."""
    device: torch.device
    """Where models run."""
    folder: Path | None
    """Where temporary files are written; None is the system's temporary folder."""
    only: str | None
    """The one section to measure; None measures all."""
    log: Callable[[str], None] = lambda line: print(line, flush=True)
    """Prints a line of progress."""

    def includes(self, section: str) -> bool:
        """Return whether a section is to be measured."""
        return self.only in (None, section)


@dataclass(frozen=True)
class Measurement:
    """What a benchmark returns to :func:`main`; the fields are those of :class:`Results`."""

    tables: Sequence[Table]
    settings: Mapping[str, Any]
    missing: Mapping[str, str] = field(default_factory=dict)
    peers: Sequence[str] = ()
    """More packages whose versions are recorded."""


def main(
    name: str,
    description: str,
    measure: Callable[[RunOptions], Measurement],
    rounds: tuple[int, int],
    sections: Sequence[str] = (),
) -> None:
    """Run a benchmark from the command line; print its tables and write its JSON.

    Args:
        name: the name of the script and of its JSON file.
        description: the first line of ``--help``.
        measure: runs the benchmark.
        rounds: the default number of rounds, in full and in the small form.
        sections: the values that ``--only`` takes; empty leaves the option out.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--small", action="store_true", help="a quick check with little data: a minute or two"
    )
    parser.add_argument(
        "--rounds", type=int, help=f"2 or more; default {rounds[0]}, with --small {rounds[1]}"
    )
    parser.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda"])
    parser.add_argument(
        "--folder", type=Path, help="where to write data; default: the temporary folder"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("bench"), help="where to write the JSON; default: bench"
    )
    if sections:
        parser.add_argument("--only", choices=sections, help="measure this section alone")
    arguments = parser.parse_args()
    only = getattr(arguments, "only", None)
    device = chosen_device(arguments.device)
    options = RunOptions(
        arguments.small,
        arguments.rounds or rounds[arguments.small],
        device,
        arguments.folder,
        only,
    )
    machine_before = machine(device)  # before the benchmark itself raises the load average
    measured = measure(options)
    flags = [
        *(["--small"] if options.small else []),
        *(["--only", only] if only else []),
        *(["--rounds", str(arguments.rounds)] if arguments.rounds else []),
        *(["--device", device.type] if device.type != "cpu" else []),
    ]
    results = Results(
        name,
        " ".join(["python", f"benchmarks/{name}.py", *flags]),
        options.small,
        str(datetime.now(UTC).date()),
        machine_before,
        versions([*_PACKAGES, *measured.peers]),
        {"rounds": options.rounds, **measured.settings},
        measured.tables,
        measured.missing,
    )
    print(results.markdown())
    print(f"\n{results.save(arguments.out)}")


def machine(device: torch.device) -> dict[str, Any]:
    """Return the properties of the machine that the numbers depend on."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line for line in info.splitlines() if line.startswith("model name")), "")
    return {
        "GPU": torch.cuda.get_device_name(device) if device.type == "cuda" else "none",
        "processor": model.partition(": ")[2] or platform.machine(),
        "cores": cores(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "torch threads": torch.get_num_threads(),
        "load average before": round(os.getloadavg()[0], 1),
        "system": platform.system(),
        "Python": platform.python_version(),
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the version of each package that is installed."""
    installed = {}
    for name in packages:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def shuffled_turns(names: Sequence[Name], rounds: int) -> list[tuple[int, Name]]:
    """Return (round, name) for every name in every round, each round in another order."""
    return [
        (number, names[index])
        for number in range(rounds)
        for index in np.random.default_rng(number).permutation(len(names))
    ]


def quartiles(values: Sequence[float]) -> list[float]:
    """Return the median, then the first and the third quartile."""
    first, middle, third = quantiles(values, n=4, method="inclusive")
    return [middle, first, third]


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Return the quartiles of the ratios of two measurements, each ratio within one round."""
    return quartiles([a / b for a, b in zip(numerators, denominators, strict=True)])


def cell(value: Value) -> str:
    """Return a value as a table shows it."""
    if isinstance(value, list):
        middle, first, third = map(_number, value)
        return f"{middle} ({first}–{third})"
    return value if isinstance(value, str) else _number(value)


def one_line(text: str) -> str:
    """Return a text with all line breaks and indents as single spaces."""
    return " ".join(text.split())


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _listed(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
