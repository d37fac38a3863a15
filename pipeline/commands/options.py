"""What the commands of the command line share: options, and how a result is said."""

import json
import os
from typing import Annotated, Any

import typer

from ..errors import UsageError


def _default_cache() -> str:
    return os.environ.get("MSER_CACHE") or "~/.cache/mser"


Cache = Annotated[
    str,
    typer.Option(
        "--cache",
        help="Folder or URL (s3://…) of the cache; $MSER_CACHE, else ~/.cache/mser.",
        default_factory=_default_cache,
        show_default=False,
    ),
]
Modalities = Annotated[str, typer.Option(help="Which modalities, separated by commas.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Store = Annotated[str, typer.Option(help="zarr or hdf5.")]
Compression = Annotated[str, typer.Option(help="none, zstd or blosc; none is mapped into memory.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Dataset = Annotated[str, typer.Option(help="Name of the dataset in the cache.")]
Modality = Annotated[str | None, typer.Option(help="Such as speech, if the dataset has several.")]
EntryEncoder = Annotated[
    str | None, typer.Option("--encoder", help="Name or key, if the dataset has several.")
]


def say(result: Any, as_json: bool) -> None:
    """Print a result in words, or as JSON."""
    typer.echo(json.dumps(result.as_json(), indent=2) if as_json else str(result))


def split(names: str) -> list[str]:
    """Return the names in a list that is separated by commas."""
    return [name.strip() for name in names.split(",") if name.strip()]


def numbers(text: str, what: str) -> tuple[int, ...]:
    """Return the numbers in a list that is separated by commas.

    Raises:
        UsageError: a part is not a number.
    """
    try:
        return tuple(int(part) for part in split(text))
    except ValueError:
        raise UsageError(
            f"{what} '{text}': give numbers separated by commas, such as 0,1,2"
        ) from None
