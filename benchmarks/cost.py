"""Write the page of what an extraction costs, from the measured constants: disk, hours, money.

The constants are in ``measured/gpu.json`` and ``measured/extract.json``, the text is in
``cost.md.jinja``.

Run it with ``python benchmarks/cost.py``: it writes ``docs/cost.md``. With ``--corpus NAME=HOURS``
or ``--price`` it prints the table of your own corpora and price instead.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from mser.benchmarks.results import Results

HERE = Path(__file__).parent
PRICE = 4.0  # US dollars for an hour of a GPU
CORPORA = {"IEMOCAP": 12.0, "MSP-Podcast": 400.0, "10,000 hours": 10_000.0}
"""Name → hours of audio, about."""
UTTERANCE_SECONDS = 4.5  # on average, about that of IEMOCAP
LAYERS, DIM = 13, 768  # of both encoders of base size
VECTOR = LAYERS * DIM * 2 * 2  # bytes of a mean of all layers in float16, of two modalities


@dataclass(frozen=True)
class Constants:
    """What was measured of speech and text at base size, float16, all layers."""

    gigabytes: float
    """On disk for an hour of clips."""
    gpu_speed: float
    """Extraction on the GPU, × real time."""
    cpu_speed: float
    """Extraction on two cores, × real time."""
    gpu: str
    """The name of the GPU."""

    @classmethod
    def of(cls, gpu: Results, extract: Results) -> "Constants":
        """Take the constants from the results of two benchmarks."""
        (on_gpu,) = (t.rows for t in gpu.tables if t.title.startswith("Extraction on a GPU"))
        (on_cpu,) = (t.rows for t in extract.tables if "speech and text" in t.title)
        row = on_gpu["base size, float32"]
        hours = float(gpu.settings["minutes of clips"]) / 60
        return cls(
            _number(row["GB written"]) / hours,
            _number(row["mser, × real time"]),
            _number(on_cpu["mser"]["× real time"]),
            str(gpu.machine["GPU"]),
        )


CHOICES = {
    "float16, all layers": lambda hours, per_hour: hours * per_hour,
    "`--frames 4`, all layers": lambda hours, per_hour: hours * per_hour / 4,
    "`--layers 6,9,12`": lambda hours, per_hour: hours * per_hour * 3 / LAYERS,
    "`--layers last`": lambda hours, per_hour: hours * per_hour / LAYERS,
    "`--frames mean`, all layers": lambda hours, _: hours * 3600 / UTTERANCE_SECONDS * VECTOR / 1e9,
}
"""Choice → gigabytes of so many hours, from the gigabytes of an hour with all layers."""


def table(constants: Constants, corpora: Mapping[str, float], price: float) -> str:
    """Return the table in Markdown.

    Args:
        constants: what was measured.
        corpora: name → hours of audio.
        price: of an hour of the GPU.
    """
    names = ["corpus", "hours of audio", *(f"{name}, GB" for name in CHOICES)]
    names += ["GPU hours", f"money, at {price:g} an hour", "hours on two cores"]
    lines = [names, ["---", *["---:"] * (len(names) - 1)]]
    for corpus, hours in corpora.items():
        on_gpu = hours / constants.gpu_speed
        cells = [corpus, f"{hours:,.0f}"]
        cells += [_short(size(hours, constants.gigabytes)) for size in CHOICES.values()]
        cells += [_short(on_gpu), f"{on_gpu * price:,.2f}", _short(hours / constants.cpu_speed)]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(constants: Constants) -> str:
    """Return the page in Markdown."""
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string((HERE / "cost.md.jinja").read_text("utf-8"))
    return template.render(
        table=table(constants, CORPORA, PRICE),
        constants=constants,
        price=PRICE,
        seconds=UTTERANCE_SECONDS,
    )


def measured() -> Constants:
    """Return the constants of this repository."""
    gpu, extract = (Results.load(HERE / "measured" / f"{n}.json") for n in ("gpu", "extract"))
    return Constants.of(gpu, extract)


def main() -> None:
    parser = argparse.ArgumentParser(description="What an extraction costs.")
    parser.add_argument("--price", type=float, help=f"of an hour of the GPU; default {PRICE:g}")
    parser.add_argument("--corpus", action="append", help="NAME=HOURS; repeatable", metavar="…")
    arguments = parser.parse_args()
    if arguments.price is None and not arguments.corpus:
        (HERE.parent / "docs" / "cost.md").write_text(page(measured()), encoding="utf-8")
        return
    given = dict(text.rsplit("=", 1) for text in arguments.corpus or [])
    corpora = {name: float(hours) for name, hours in given.items()} or CORPORA
    print(table(measured(), corpora, PRICE if arguments.price is None else arguments.price))


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _short(value: float) -> str:
    """Return three digits of a number, and no more."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2g}"


if __name__ == "__main__":
    main()
