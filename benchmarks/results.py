"""What a benchmark found: tables, with all that the numbers depend on, as text and as JSON."""

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

Value = float | str | list[float]  # a list holds a median, and the first and the third quartile
Rows = dict[str, dict[str, Value]]
Name = TypeVar("Name")

_PACKAGES = ("mser", "torch", "transformers", "numpy", "zarr", "h5py", "pyarrow", "dask")


@dataclass(frozen=True)
class Plot:
    """How a table is drawn: a bar a row of ``column``, or, given ``x``, a line over its numbers.

    ``by`` is the column that says to which line a row belongs.
    """

    column: str
    log: bool = False
    x: str | None = None
    by: str | None = None


@dataclass(frozen=True)
class Table:
    """Rows with the same columns, under a title that no other table of the benchmark has."""

    title: str
    rows: Rows
    note: str = ""
    plot: Plot | None = None

    def markdown(self) -> str:
        """Return it in Markdown; of three numbers the last two, in brackets, are quartiles."""
        names = list(next(iter(self.rows.values())))
        lines = [["", *names], ["---"] + ["---:"] * len(names)]
        lines += [[row, *map(cell, values.values())] for row, values in self.rows.items()]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"**{self.title}**\n\n{table}" + (f"\n\n{self.note}" if self.note else "")


@dataclass(frozen=True)
class Results:
    """All that one script found in one run.

    ``settings`` are those of the run, ``versions`` those of the peers, and ``missing`` says of a
    peer, or of a measurement, why it is not there.
    """

    name: str
    command: str
    small: bool
    date: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    tables: Sequence[Table]
    missing: Mapping[str, str] = field(default_factory=dict)

    def markdown(self, pictures: Mapping[str, str] | None = None) -> str:
        """Return where and how it was measured, the tables, and what is missing.

        ``pictures`` are the paths of those that belong to tables, by their titles.
        """
        small = ["**The small form**: it shows that all runs; its numbers are rough."]
        missing = [f"- Not measured: {name}: {reason}." for name, reason in self.missing.items()]
        facts = (
            f"`{self.command}`, {self.date}, {_listed(self.machine)}; {_listed(self.versions)}; "
            f"{_listed(self.settings)}."
        )
        tables, said = [], {""}
        for table in self.tables:
            # What holds of several tables stands under the first.
            tables.append(replace(table, note="" if table.note in said else table.note).markdown())
            said.add(table.note)
            if pictures and table.title in pictures:
                tables.append(f"![{table.title}]({pictures[table.title]})")
        missed = ["\n".join(missing)] if missing else []
        return "\n\n".join([*(small if self.small else []), facts, *tables, *missed])

    def save(self, folder: Path) -> Path:
        """Write it as ``NAME.json`` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", "utf-8")
        return path

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Read what ``save`` wrote."""
        said = json.loads(path.read_text("utf-8"))
        tables = [
            Table(**{**one, "plot": Plot(**one["plot"]) if one["plot"] else None})
            for one in said.pop("tables")
        ]
        return cls(**said, tables=tables)


@dataclass(frozen=True)
class Asked:
    """What the command line asks of a benchmark; ``say`` prints a line at once."""

    small: bool
    rounds: int
    device: torch.device
    folder: Path | None
    only: str | None
    say: Callable[[str], None] = lambda line: print(line, flush=True)

    def wants(self, section: str) -> bool:
        return self.only in (None, section)


@dataclass(frozen=True)
class Found:
    """What a benchmark gives to :func:`main`: see :class:`Results`."""

    tables: Sequence[Table]
    settings: Mapping[str, Any]
    missing: Mapping[str, str] = field(default_factory=dict)
    peers: Sequence[str] = ()  # packages of which the versions matter


def main(
    name: str,
    what: str,
    measure: Callable[[Asked], Found],
    rounds: tuple[int, int],
    sections: Sequence[str] = (),
) -> None:
    """Run a benchmark as its command line asks; print its tables and write its JSON.

    Args:
        name: of the script, and of its JSON.
        what: the first line of its help.
        measure: does it.
        rounds: how often each thing is measured by default, in full and in the small form.
        sections: the parts of it of which ``--only`` takes one.
    """
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--small", action="store_true", help="few and short: a minute or two")
    parser.add_argument("--rounds", type=int, help="two or more")
    parser.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--folder", type=Path, help="where to work, else the temporary folder")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="where the JSON goes")
    if sections:
        parser.add_argument("--only", choices=sections)
    options = parser.parse_args()
    only = getattr(options, "only", None)
    device = chosen_device(options.device)
    asked = Asked(
        options.small, options.rounds or rounds[options.small], device, options.folder, only
    )
    surroundings = machine(device)  # before the benchmark itself makes the load
    found = measure(asked)
    flags = [
        *(["--small"] if asked.small else []),
        *(["--only", only] if only else []),
        *(["--rounds", str(options.rounds)] if options.rounds else []),
        *(["--device", device.type] if device.type != "cpu" else []),
    ]
    results = Results(
        name,
        " ".join(["python", f"benchmarks/{name}.py", *flags]),
        asked.small,
        str(datetime.now(UTC).date()),
        surroundings,
        versions([*_PACKAGES, *found.peers]),
        {"rounds": asked.rounds, **found.settings},
        found.tables,
        found.missing,
    )
    print(results.markdown())
    print(f"\n{results.save(options.out)}")


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line for line in info.splitlines() if line.startswith("model name")), "")
    return {
        "GPU": torch.cuda.get_device_name(device) if device.type == "cuda" else "none",
        "processor": model.partition(": ")[2] or platform.machine(),
        "cores": cores(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "torch threads": torch.get_num_threads(),
        "load before": round(os.getloadavg()[0], 1),
        "system": platform.system(),
        "Python": platform.python_version(),
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the version of each package that is installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def turns(names: Sequence[Name], rounds: int) -> list[tuple[int, Name]]:
    """Each round all names, each time in another order."""
    return [
        (number, names[at])
        for number in range(rounds)
        for at in np.random.default_rng(number).permutation(len(names))
    ]


def quartiles(values: Sequence[float]) -> list[float]:
    """The median, then the first and the third quartile."""
    first, middle, third = quantiles(values, n=4, method="inclusive")
    return [middle, first, third]


def ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Quartiles of the ratios of what was measured in the same rounds."""
    return quartiles([one / other for one, other in zip(values, others, strict=True)])


def cell(value: Value) -> str:
    """Return a value as it is written in a table."""
    if isinstance(value, list):
        middle, first, third = map(_number, value)
        return f"{middle} ({first}–{third})"
    return value if isinstance(value, str) else _number(value)


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _listed(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
