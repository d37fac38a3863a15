"""The commands of ``mser cache``: arguments in, one call, words out."""

from pathlib import Path
from typing import Annotated

import typer

from ..layers import layer_numbers
from .options import Cache, Compression, Dataset, EntryEncoder, Json, Modality, Store, say

app = typer.Typer(
    help="Look after the cache, and bring features in and out.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("ls", epilog="Example: mser cache ls --cache /cluster/mser")
def list_entries(cache: Cache, as_json: Json = False) -> None:
    """List all entries: how large, how old, who filled them."""
    from ...cache import FeatureCache, listing  # noqa: PLC0415

    say(listing(FeatureCache(cache)), as_json)


@app.command(epilog="Example: mser cache info --dataset meld --modality speech")
def info(
    dataset: Dataset,
    cache: Cache,
    modality: Modality = None,
    encoder: EntryEncoder = None,
    as_json: Json = False,
) -> None:
    """Show all that is known of an entry, and all that is needed to make it again."""
    from ...cache import FeatureCache, info  # noqa: PLC0415

    say(info(FeatureCache(cache).open(dataset, encoder, modality=modality)), as_json)


@app.command(epilog="Example: mser cache verify --dataset meld --sample 0.1")
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
    from ...cache import FeatureCache, verify_all  # noqa: PLC0415
    from ..progress import stepping  # noqa: PLC0415

    features = FeatureCache(cache)
    datasets = features.datasets() if dataset is None else [dataset]
    chosen = [place for one in datasets for place in features.entry_folders(one, encoder, modality)]
    result = verify_all(chosen, sample, repair=repair, each=stepping("verifying", "shard"))
    say(result, as_json)
    if result.damaged:
        raise typer.Exit(1)


@app.command(epilog="Example: mser cache gc --yes")
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
    from ...cache import FeatureCache, collect_garbage  # noqa: PLC0415

    say(collect_garbage(FeatureCache(cache), delete=yes, minimum_age=older_than), as_json)


@app.command(epilog="Example: mser cache convert --dataset meld --to hdf5")
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
    from ...cache import FeatureCache, convert  # noqa: PLC0415
    from ..progress import stepping  # noqa: PLC0415

    entry = FeatureCache(cache).open(dataset, encoder, modality=modality)
    say(convert(entry, to, compression, stepping("converting", "shard")), as_json)


@app.command(
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
        Path | None, typer.Option(help="Your corpus as a table: .csv, .jsonl or .parquet.")
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
    from ..exchange import ImportSettings, import_features  # noqa: PLC0415

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
        layers=layer_numbers(layers) if layers else None,
    )
    say(import_features(settings), as_json)


@app.command(epilog="Example: mser cache export --dataset meld --to feats --format npy")
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
    from ..exchange import ExportSettings, export_features  # noqa: PLC0415

    chosen = layer_numbers(layers) if layers else None
    settings = ExportSettings(
        cache, dataset, to, format_, encoder=encoder, modality=modality, layers=chosen
    )
    say(export_features(settings), as_json)
