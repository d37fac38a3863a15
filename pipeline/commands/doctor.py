"""The command that checks this machine."""

import typer

from ..modalities import MODALITIES, USUAL
from .options import CacheOption, JsonOption, print_result

app = typer.Typer()


@app.command(epilog="Example: mser doctor --cache /cluster/mser")
def doctor(cache: CacheOption, as_json: JsonOption = False) -> None:
    """Check this machine: packages, devices, FFmpeg, the hub, the cache, SLURM."""
    from ..doctor import doctor  # noqa: PLC0415 -- imports what it checks

    encoders = tuple(MODALITIES[name].encoder for name in USUAL)
    diagnosis = doctor(cache, encoders)
    print_result(diagnosis, as_json)
    if diagnosis.broken:
        raise typer.Exit(1)
