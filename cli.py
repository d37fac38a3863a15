"""The command line: arguments in, one call into the pipeline, words out."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import __version__
from .pipeline.commands.cache import app as cache_app
from .pipeline.commands.options import (
    Cache,
    Compression,
    Device,
    Json,
    Modalities,
    Store,
    say,
    split,
)
from .pipeline.commands.train import app as head_app
from .pipeline.errors import PipelineError, UsageError

SPEECH_ENCODER = "facebook/wav2vec2-base"
TEXT_ENCODER = "bert-base-uncased"


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise PipelineError(
                "interrupted: what was finished is kept, and the same command goes on from there"
            ) from None


app = typer.Typer(
    cls=_Commands,
    help="Extract hidden states of frozen encoders once; train emotion heads on them in minutes.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(head_app)
app.add_typer(cache_app, name="cache")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _all_commands(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    if debug:
        os.environ["MSER_DEBUG"] = "1"


@app.command(epilog="Example: mser demo --out mser-demo")
def demo(
    out: Annotated[Path, typer.Option(help="Where to put everything.")] = Path("mser-demo"),
    utterances: Annotated[int, typer.Option(help="Size of the synthetic corpus.")] = 320,
) -> None:
    """Run the main job end to end on a small synthetic corpus, offline."""
    from .pipeline.demo import demo  # noqa: PLC0415 -- imports torch, which takes seconds

    demo(out, typer.echo, utterances)


@app.command(
    epilog="Example: mser extract --dataset meld --root /data/MELD.Raw --cache /cluster/mser"
)
def extract(
    dataset: Annotated[str, typer.Option(help="iemocap, meld, crema-d, synthetic or manifest.")],
    cache: Cache,
    root: Annotated[Path | None, typer.Option(help="Folder of the corpus.")] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Your own corpus as a table: .csv, .jsonl or .parquet.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the cache calls the corpus of --manifest.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Only utterances of this set of classes: 4 or 6.")
    ] = None,
    modalities: Modalities = "speech,text",
    speech_encoder: Annotated[str, typer.Option(help="Hub name or local folder.")] = SPEECH_ENCODER,
    text_encoder: Annotated[str, typer.Option(help="Hub name or local folder.")] = TEXT_ENCODER,
    layers: Annotated[str, typer.Option(help="all, last, or numbers such as 0,6,12.")] = "all",
    dtype: Annotated[
        str, typer.Option(help="Of the stored features: float16, float32.")
    ] = "float16",
    precision: Annotated[
        str, typer.Option(help="Of the forward pass: float32, bfloat16, float16.")
    ] = "float32",
    max_seconds: Annotated[
        float, typer.Option(help="Audio that is longer is encoded in overlapping windows.")
    ] = 30.0,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            help="Dask worker processes; 0 works in this process. By default one for each GPU, "
            "or one a core up to four."
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Work on a running Dask scheduler, such as tcp://node1:8786, instead."),
    ] = None,
    slurm: Annotated[
        Path | None,
        typer.Option(help="Work in SLURM jobs, as a TOML file describes them, instead."),
    ] = None,
    wait_minutes: Annotated[
        float | None,
        typer.Option(
            help="How long --scheduler (1) or --slurm (10) may be without any worker.",
            show_default=False,
        ),
    ] = None,
    store: Store = "zarr",
    compression: Compression = "none",
    shard_mib: Annotated[
        float | None,
        typer.Option(
            help="Largest shard: what a killed worker loses at most. By default 64, on a GPU 256."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first utterances.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="End at the first bad utterance.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run frozen encoders over a corpus and keep all hidden layers in the cache."""
    from .pipeline.extract import ExtractSettings, extract  # noqa: PLC0415

    names = {"speech": speech_encoder, "text": text_encoder}
    summary = extract(
        ExtractSettings(
            dataset=dataset,
            root=root,
            manifest=manifest,
            name=name,
            classes=classes,
            cache=cache,
            encoders={one: names.get(one, "") for one in split(modalities)},
            layers=layers,
            dtype=dtype,
            precision=precision,
            max_seconds=max_seconds,
            device=device,
            workers=workers,
            scheduler=scheduler,
            slurm=slurm,
            wait_minutes=wait_minutes,
            limit=limit,
            strict=strict,
            dry_run=dry_run,
            shard_mib=shard_mib,
            store=store,
            compression=compression,
        )
    )
    say(summary, as_json)


@app.command(epilog="Example: mser doctor --cache /cluster/mser")
def doctor(cache: Cache, as_json: Json = False) -> None:
    """Say what this machine has: packages, devices, FFmpeg, the hub, the cache, SLURM."""
    from .pipeline.doctor import doctor  # noqa: PLC0415 -- imports what it looks at

    found = doctor(cache, (SPEECH_ENCODER, TEXT_ENCODER))
    say(found, as_json)
    if found.broken:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; an error is one sentence on standard error and an exit code."""
    # OpenMP's threads spin while they wait for each other. Where another program holds a core they
    # spin for its whole time slice, at each of a small head's many small operations.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        app()
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None or os.environ.get("MSER_DEBUG"):
            raise
        sys.stderr.write(f"mser: {sentence}\n")
        sys.exit(2 if isinstance(error, UsageError) else 1)


def _sentence(error: Exception) -> str | None:
    """Return what to say of an error that can be expected, and nothing of one that is a bug."""
    from .cache import CacheError  # noqa: PLC0415 -- imports zarr, which --help need not wait for

    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) if isinstance(error, CacheError | PipelineError | OSError) else None
