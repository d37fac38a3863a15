"""The command that shows the whole pipeline on a small corpus."""

from pathlib import Path
from typing import Annotated

import typer

from .options import USUAL_MODALITIES, ModalitiesOption, split

app = typer.Typer()


@app.command(epilog="Example: mser demo --out mser-demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for all files of the demo.")] = Path(
        "mser-demo"
    ),
    utterances: Annotated[
        int, typer.Option(help="Number of utterances in the synthetic corpus.")
    ] = 320,
    modalities: ModalitiesOption = USUAL_MODALITIES,
) -> None:
    """Run the whole pipeline on a small synthetic corpus, offline."""
    from ..demo import demo  # noqa: PLC0415 -- torch takes seconds to import

    demo(out, typer.echo, utterances, split(modalities or USUAL_MODALITIES))
