"""The commands that share heads on the Hugging Face hub; ``mser cache push`` shares features."""

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    JsonOption,
    MovedCacheOption,
    PrivateOption,
    RepoArgument,
    RevisionOption,
    RunArgument,
    print_result,
)

app = typer.Typer()


@app.command(epilog="Example: mser push runs/meld-hbf-1f3c22aa me/meld-hbf --license mit")
def push(
    run: RunArgument,
    repo: RepoArgument,
    license_: Annotated[
        str,
        typer.Option("--license", help="Licence of the head, by the hub's name, such as mit."),
    ] = "other",
    private: PrivateOption = True,
    cache: MovedCacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the heads of a run, with a model card, into a repository of the Hugging Face hub."""
    from ..share import push  # noqa: PLC0415 -- torch takes seconds to import

    print_result(push(run, repo, license=license_, private=private, cache=cache), as_json)


@app.command(epilog="Example: mser pull someone/meld-hbf meld-hbf")
def pull(
    repo: RepoArgument,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the run.")],
    revision: RevisionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch heads that mser push wrote, for mser predict; nothing that is fetched is executed."""
    from ..share import pull  # noqa: PLC0415 -- torch takes seconds to import

    print_result(pull(repo, out, revision=revision), as_json)
