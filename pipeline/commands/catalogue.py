"""The command that lists what there is."""

from typing import Annotated

import typer

from .options import JsonOption, print_result

KINDS = (
    *("heads", "corpora", "encoders", "protocols", "presets", "ablations", "reproductions"),
    *("settings", "formats", "metrics", "targets"),
)

app = typer.Typer()


@app.command("list", epilog="Example: mser list heads")
def list_(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"What to list: {', '.join(KINDS)}.")],
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="Show the options of one head or encoder, also file.py:Class."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List heads, corpora, encoders, protocols and others, those of plug-ins included."""
    from ..catalogue import catalogue  # noqa: PLC0415 -- torch takes seconds to import

    print_result(catalogue(kind, name), as_json)
