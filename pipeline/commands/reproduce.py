"""The command that goes from a corpus to a published table."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    CacheOption,
    DeviceOption,
    JsonOption,
    SeedsOption,
    SetOption,
    numbers,
    print_result,
    with_encoders,
    with_place,
)

app = typer.Typer()


@app.command(epilog="Example: mser reproduce superb-er --root /data/IEMOCAP_full_release")
@with_encoders(cached=True, default="the published one")
@with_place
def reproduce(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="Published table: superb-er, emobox-iemocap, mgcma-table2, or the path of a .toml "
            "file. 'mser list reproductions' explains them.",
        ),
    ],
    cache: CacheOption,
    encoders: dict[str, str | None],
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of the corpus. Default: its features are in the cache."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the table and the runs. Default: one in reproductions/."),
    ] = None,
    seeds: SeedsOption = None,
    set_: SetOption = None,
    device: DeviceOption = "auto",
    *,
    place: dict[str, Any],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the plan and the differences.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Extract, train and score for a published table, and print ours beside the published numbers.

    Run it again to continue.
    """
    from ..runs.reproduction import reproduce  # noqa: PLC0415 -- torch takes seconds to import

    given: dict[str, Any] = {} if seeds is None else {"seeds": numbers(seeds, "seeds")}
    result = reproduce(
        table,
        root,
        out or Path("reproductions") / Path(table).stem,
        given=given,
        assignments=set_ or [],
        encoders=encoders,
        cache=cache,
        dry_run=dry_run,
        say=(lambda line: None) if as_json else typer.echo,
        device=device,
        **place,
    )
    print_result(result, as_json)
