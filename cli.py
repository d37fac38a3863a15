"""The command line: arguments in, one call into the pipeline, words out."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import __version__
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


cache_app = typer.Typer(
    help="Look after the cache, and bring features in and out.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(cache_app, name="cache")


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
) -> None:
    """Run the main job end to end on a small synthetic corpus, offline."""
    from .pipeline.demo import demo  # noqa: PLC0415 -- imports torch, which takes seconds

    demo(out, typer.echo)


@app.command(
    epilog="Example: mser extract --dataset meld --root /data/MELD.Raw --cache /cluster/mser"
)
def extract(
    dataset: Annotated[str, typer.Option(help="meld or synthetic.")],
    root: Annotated[Path, typer.Option(help="Folder of the corpus.")],
    cache: Cache,
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
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            help="Dask worker processes; 0 works in this process. By default one on a GPU, "
            "or one a core up to four."
        ),
    ] = None,
    store: Store = "zarr",
    compression: Compression = "none",
    shard_mib: Annotated[
        float, typer.Option(help="Largest shard: what a killed worker loses at most.")
    ] = 64.0,
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
            cache=cache,
            encoders={one: names.get(one, "") for one in _split(modalities)},
            layers=layers,
            dtype=dtype,
            precision=precision,
            device=device,
            workers=workers,
            limit=limit,
            strict=strict,
            dry_run=dry_run,
            shard_mib=shard_mib,
            store=store,
            compression=compression,
        )
    )
    _say(summary, as_json)


@app.command(epilog="Example: mser train-head --dataset meld --head hbf --seeds 0,1,2")
def train_head(
    head: Annotated[str, typer.Option(help="linear or hbf.")],
    dataset: Dataset,
    cache: Cache,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; by default a new one below runs/.")
    ] = None,
    modalities: Modalities = "speech,text",
    speech_encoder: Annotated[
        str | None,
        typer.Option(help="Name, folder or key; needed where the cache holds several."),
    ] = None,
    text_encoder: Annotated[str | None, typer.Option(help="The same for text.")] = None,
    layer: Annotated[
        str | None, typer.Option(help="mix, last or a number; by default the head's own choice.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="official, leave-one-session-out; by default the corpus's own."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Numbers, separated by commas.")] = "0",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, such as epochs=20 or head.width=128; repeatable."),
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train a head on cached features by a protocol, and write a run folder."""
    from .pipeline.train import TrainSettings, train_head  # noqa: PLC0415

    names = {"speech": speech_encoder, "text": text_encoder}
    settings = TrainSettings(
        head=head,
        dataset=dataset,
        cache=cache,
        encoders={one: names.get(one) for one in _split(modalities)},
        out=out,
        layer=layer,
        protocol=protocol,
        seeds=_numbers(seeds, "seeds"),
        device=device,
    )
    run = train_head(settings.with_overrides(set_ or []))
    result = {"run": str(run.path), **run.metrics}
    typer.echo(json.dumps(result, indent=2) if as_json else str(run))


@cache_app.command("ls", epilog="Example: mser cache ls --cache /cluster/mser")
def list_entries(cache: Cache, as_json: Json = False) -> None:
    """List all entries: how large, how old, who filled them."""
    from .cache import FeatureCache, listing  # noqa: PLC0415

    _say(listing(FeatureCache(cache)), as_json)


@cache_app.command(epilog="Example: mser cache info --dataset meld --modality speech")
def info(
    dataset: Dataset,
    cache: Cache,
    modality: Modality = None,
    encoder: EntryEncoder = None,
    as_json: Json = False,
) -> None:
    """Show all that is known of an entry, and all that is needed to make it again."""
    from .cache import FeatureCache, info  # noqa: PLC0415

    _say(info(FeatureCache(cache).open(dataset, encoder, modality=modality)), as_json)


@cache_app.command(epilog="Example: mser cache verify --dataset meld --sample 0.1")
def verify(
    cache: Cache,
    dataset: Annotated[str | None, typer.Option(help="Only this dataset.")] = None,
    modality: Modality = None,
    encoder: EntryEncoder = None,
    sample: Annotated[
        float, typer.Option(help="Part of the shards to read, chosen at random.", min=0, max=1)
    ] = 1.0,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Keep what is whole; have the rest extracted again."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Read what is stored and compare every hash; damage is exit code 1."""
    from .cache import FeatureCache, verify_all  # noqa: PLC0415
    from .pipeline.progress import stepping  # noqa: PLC0415

    features = FeatureCache(cache)
    datasets = features.datasets() if dataset is None else [dataset]
    chosen = [place for one in datasets for place in features.places(one, encoder, modality)]
    result = verify_all(chosen, sample, repair=repair, each=stepping("verifying", "shard"))
    _say(result, as_json)
    if result.damaged:
        raise typer.Exit(1)


@cache_app.command(epilog="Example: mser cache gc --yes")
def gc(
    cache: Cache,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it.")] = False,
    older_than: Annotated[
        float,
        typer.Option(help="Seconds; what is younger may be in use, and is left alone.", min=0),
    ] = 3600.0,
    as_json: Json = False,
) -> None:
    """Show what is of no use to anybody any more, and delete it with --yes."""
    from .cache import FeatureCache, collect  # noqa: PLC0415

    _say(collect(FeatureCache(cache), yes=yes, young=older_than), as_json)


@cache_app.command(epilog="Example: mser cache convert --dataset meld --to hdf5")
def convert(
    dataset: Dataset,
    cache: Cache,
    to: Annotated[str, typer.Option(help="zarr or hdf5.")],
    compression: Compression = "none",
    modality: Modality = None,
    encoder: EntryEncoder = None,
    as_json: Json = False,
) -> None:
    """Write an entry in another format or compression; its features stay the same."""
    from .cache import FeatureCache, convert  # noqa: PLC0415
    from .pipeline.progress import stepping  # noqa: PLC0415

    entry = FeatureCache(cache).open(dataset, encoder, modality=modality)
    _say(convert(entry, to, compression, stepping("converting", "shard")), as_json)


@cache_app.command(
    "import",
    epilog="Example: mser cache import feats.npz --dataset mine --encoder emotion2vec "
    "--manifest mine.csv",
)
def import_(
    source: Annotated[
        Path, typer.Argument(help="Folder of <id>.npy, an .npz, or an .npy with its .lengths.")
    ],
    dataset: Dataset,
    encoder: Annotated[str, typer.Option(help="Name of the encoder that made the features.")],
    cache: Cache,
    manifest: Annotated[
        Path | None, typer.Option(help="CSV: id,text,label,speaker,session,dialogue,split.")
    ] = None,
    modality: Annotated[str, typer.Option(help="speech, text or another.")] = "speech",
    layers: Annotated[
        str | None, typer.Option(help="The encoder's numbers of the layers, such as 0,6,12.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the stored features.")] = None,
    store: Store = "zarr",
    compression: Compression = "none",
    as_json: Json = False,
) -> None:
    """Bring features computed elsewhere into the cache, to train heads on them."""
    from .pipeline.exchange import ImportSettings, import_features  # noqa: PLC0415

    settings = ImportSettings(
        source,
        cache,
        dataset,
        encoder,
        modality=modality,
        manifest=manifest,
        dtype=dtype,
        store=store,
        compression=compression,
        layers=_numbers(layers, "layers") if layers else None,
    )
    _say(import_features(settings), as_json)


@cache_app.command(epilog="Example: mser cache export --dataset meld --to feats --format npy")
def export(
    dataset: Dataset,
    cache: Cache,
    to: Annotated[Path, typer.Option(help="A new folder.")],
    format_: Annotated[str, typer.Option("--format", help="npy, safetensors or datasets.")] = "npy",
    layers: Annotated[str | None, typer.Option(help="Only these, such as 0,6,12.")] = None,
    modality: Modality = None,
    encoder: EntryEncoder = None,
    as_json: Json = False,
) -> None:
    """Write an entry's features for other tools."""
    from .pipeline.exchange import ExportSettings, export_features  # noqa: PLC0415

    chosen = _numbers(layers, "layers") if layers else None
    settings = ExportSettings(
        cache, dataset, to, format_, encoder=encoder, modality=modality, layers=chosen
    )
    _say(export_features(settings), as_json)


def _say(result: Any, as_json: bool) -> None:
    typer.echo(json.dumps(result.as_json(), indent=2) if as_json else str(result))


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _numbers(text: str, what: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in _split(text))
    except ValueError:
        raise UsageError(
            f"{what} '{text}': give numbers separated by commas, such as 0,1,2"
        ) from None


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
