"""The commands of ``mser cache``."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
from ..layers import layer_numbers
from .options import (
    AnyEncoderOption,
    AnyModalityOption,
    CacheOption,
    CompressionOption,
    DatasetOption,
    EntryEncoderOption,
    JsonOption,
    LayersOption,
    ManifestOption,
    ModalityOption,
    OptionalDatasetOption,
    PrivateOption,
    ReplaceOption,
    RepoArgument,
    RevisionOption,
    StoreOption,
    print_result,
)

app = typer.Typer(
    help="List, check, clean and convert the cache; import and export features.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("ls", epilog="Example: mser cache ls --cache /cluster/mser")
def list_entries(cache: CacheOption, as_json: JsonOption = False) -> None:
    """List all entries with their size, their age and who wrote them."""
    from ...cache import listing  # noqa: PLC0415
    from ..feature_cache import FeatureCache  # noqa: PLC0415

    print_result(listing(FeatureCache(cache)), as_json)


@app.command(epilog="Example: mser cache info --dataset meld")
def info(
    dataset: DatasetOption,
    cache: CacheOption,
    modality: AnyModalityOption = None,
    encoder: AnyEncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the details of an entry, or of all of a dataset, and how to make them again."""
    from ...cache import CacheError, info  # noqa: PLC0415
    from ..feature_cache import FeatureCache  # noqa: PLC0415

    features = FeatureCache(cache)
    shown = []
    with suppress(CacheError):  # of an entry that is not there, or is damaged; see below
        entries = features.entries(dataset, modality) if encoder is None else []
        shown = [info(entry) for entry in entries]
    if len(shown) > 1:
        all_facts = [each.as_json() for each in shown]
        typer.echo(json.dumps(all_facts, indent=2) if as_json else "\n\n".join(map(str, shown)))
    else:
        entry = features.open(dataset, encoder, modality=modality)
        print_result(shown[0] if shown else info(entry), as_json)


@app.command(epilog="Example: mser cache verify --dataset meld --sample 0.1")
def verify(
    cache: CacheOption,
    dataset: OptionalDatasetOption = None,
    modality: AnyModalityOption = None,
    encoder: AnyEncoderOption = None,
    sample: Annotated[
        float, typer.Option(help="Share of the shards to read, chosen at random.", min=0, max=1)
    ] = 1.0,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Remove damaged features from the entry; the next extraction computes them.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Read the stored data and compare every hash; the exit code is 1 if data are damaged."""
    from ...cache import verify_all  # noqa: PLC0415
    from ..feature_cache import FeatureCache  # noqa: PLC0415
    from ..progress import stepping  # noqa: PLC0415

    features = FeatureCache(cache)
    datasets = features.datasets() if dataset is None else [dataset]
    folders = [
        folder for name in datasets for folder in features.entry_folders(name, encoder, modality)
    ]
    given = {"--dataset": dataset, "--modality": modality, "--encoder": encoder}
    asked = " ".join(f"{option} {name}" for option, name in given.items() if name is not None)
    if asked and not folders:
        raise UsageError(f"{cache} has no entry for {asked}: 'mser cache ls' lists all entries")
    result = verify_all(folders, sample, repair=repair, each=stepping("verifying", "shard"))
    print_result(result, as_json)
    if result.damaged:
        raise typer.Exit(1)


@app.command(epilog="Example: mser cache gc --yes")
def gc(
    cache: CacheOption,
    yes: Annotated[bool, typer.Option("--yes", help="Delete the files.")] = False,
    older_than: Annotated[
        float,
        typer.Option(help="Minimum age in seconds; younger files may be in use.", min=0),
    ] = 3600.0,
    as_json: JsonOption = False,
) -> None:
    """List files in the cache that nothing refers to, and delete them with --yes."""
    from ...cache import collect_garbage  # noqa: PLC0415
    from ..feature_cache import FeatureCache  # noqa: PLC0415

    print_result(collect_garbage(FeatureCache(cache), delete=yes, minimum_age=older_than), as_json)


@app.command(epilog="Example: mser cache convert --dataset meld --to hdf5")
def convert(
    dataset: DatasetOption,
    cache: CacheOption,
    to: Annotated[
        str, typer.Option(help="Store format to write: zarr, hdf5, or one of a plug-in.")
    ],
    compression: CompressionOption = "none",
    modality: ModalityOption = None,
    encoder: EntryEncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rewrite an entry in another store format or compression, with the same features."""
    from ...cache import convert  # noqa: PLC0415
    from ..feature_cache import FORMAT_PLUGINS, FeatureCache  # noqa: PLC0415
    from ..progress import stepping  # noqa: PLC0415

    entry = FeatureCache(cache).open(dataset, encoder, modality=modality)
    store = FORMAT_PLUGINS.admit(to)
    print_result(convert(entry, store, compression, stepping("converting", "shard")), as_json)


@app.command(
    "import",
    epilog="Example: mser cache import feats.npz --dataset mine --encoder emotion2vec "
    "--manifest mine.csv",
)
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of <id>.npy files, an .npz file, or an .npy file with its .lengths file."
        ),
    ],
    dataset: DatasetOption,
    encoder: Annotated[str, typer.Option(help="Name of the encoder that computed the features.")],
    cache: CacheOption,
    manifest: ManifestOption = None,
    modality: Annotated[
        str, typer.Option(help="Modality of the features: speech, text or another name.")
    ] = "speech",
    layers: LayersOption = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Type of the stored features: float16, float32, bfloat16 or int8. Default: "
            "float16 if all files are float16, else float32."
        ),
    ] = None,
    store: StoreOption = "zarr",
    compression: CompressionOption = "none",
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Import features of another tool into the cache, to train heads on them."""
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
        replace=replace,
        layers=layer_numbers(layers) if layers else None,
    )
    print_result(import_features(settings), as_json)


@app.command(epilog="Example: mser cache export --dataset meld --to feats --format npy")
def export(
    dataset: DatasetOption,
    cache: CacheOption,
    to: Annotated[Path, typer.Option(help="Folder to write; it must not exist.")],
    format_: Annotated[
        str, typer.Option("--format", help="File format: npy, safetensors or datasets.")
    ] = "npy",
    layers: LayersOption = None,
    modality: ModalityOption = None,
    encoder: EntryEncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export the features of an entry for other tools."""
    from ..exchange import ExportSettings, export_features  # noqa: PLC0415

    settings = ExportSettings(
        cache,
        dataset,
        to,
        format_,
        encoder=encoder,
        modality=modality,
        layers=layer_numbers(layers) if layers else None,
    )
    print_result(export_features(settings), as_json)


@app.command(epilog="Example: mser cache push me/own --dataset own --i-may-share --license mit")
def push(
    repo: RepoArgument,
    dataset: DatasetOption,
    cache: CacheOption,
    modality: ModalityOption = None,
    encoder: EntryEncoderOption = None,
    i_may_share: Annotated[
        bool,
        typer.Option("--i-may-share", help="The licence of the corpus lets me pass them on."),
    ] = False,
    license_: Annotated[
        str | None,
        typer.Option("--license", help="Licence of the corpus, by the hub's name, such as odbl."),
    ] = None,
    private: PrivateOption = True,
    as_json: JsonOption = False,
) -> None:
    """Write the features of an entry into a dataset repository of the Hugging Face hub."""
    from ..feature_cache import FeatureCache  # noqa: PLC0415
    from ..share.features import push_features  # noqa: PLC0415

    features = FeatureCache(cache)
    entry = features.open(dataset, encoder, modality=modality)
    pushed = push_features(
        features, entry, repo, license=license_, i_may_share=i_may_share, private=private
    )
    print_result(pushed, as_json)


@app.command(epilog="Example: mser cache pull someone/their-features --cache /cluster/mser")
def pull(
    repo: RepoArgument,
    cache: CacheOption,
    revision: RevisionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add the features of a dataset repository of the hub to the cache, and verify them."""
    from ..feature_cache import FeatureCache  # noqa: PLC0415
    from ..share.features import pull_features  # noqa: PLC0415

    print_result(pull_features(FeatureCache(cache), repo, revision=revision), as_json)
