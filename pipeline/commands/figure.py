"""The commands of ``mser figure``."""

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    DeviceOption,
    JsonOption,
    MovedCacheOption,
    PluginHeadOption,
    RunArgument,
    print_result,
)

app = typer.Typer(
    help="Draw figures of finished runs.", no_args_is_help=True, rich_markup_mode=None
)


@app.command(epilog="Example: mser figure tsne runs/iemocap-mgcma-1f3c22aa --fold Ses05")
def tsne(
    run: RunArgument,
    out: Annotated[
        Path,
        typer.Option(help="SVG or PDF file to write; the positions go into a CSV file."),
    ] = Path("tsne.svg"),
    fold: Annotated[
        str | None, typer.Option(help="Fold whose test part is drawn. Default: the first.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed whose head is used. Default: the first.")
    ] = None,
    cache: MovedCacheOption = None,
    device: DeviceOption = "auto",
    head: PluginHeadOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw the vectors of each modality before and after the alignment by t-SNE."""
    from ..runs.tsne import tsne_figure  # noqa: PLC0415 -- torch takes seconds to import

    figure = tsne_figure(run, out, fold, seed, cache=cache, device=device, head=head)
    print_result(figure, as_json)
