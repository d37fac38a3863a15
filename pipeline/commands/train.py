"""The commands that train: one head, or the systems of a paper's table."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UsageError, needs_extra
from .names import check_cached, check_head, check_preset
from .options import (
    BalanceOption,
    CacheOption,
    ClassesOption,
    ClassMapOption,
    DatasetOption,
    DeviceOption,
    HeadOption,
    JsonOption,
    LayerOption,
    ModalitiesOption,
    OptionalDatasetOption,
    ProtocolOption,
    SeedsOption,
    SetOption,
    TargetOption,
    TestOnOption,
    TrainOnOption,
    ValidationOption,
    WorkersOption,
    numbers,
    print_result,
    split,
    with_encoders,
    with_place,
)

app = typer.Typer()


@app.command(epilog="Example: mser train-head --dataset meld --head hbf --seeds 0,1,2")
@with_encoders(cached=True)
@with_place
def train_head(
    cache: CacheOption,
    encoders: dict[str, str | None],
    head: HeadOption = None,
    dataset: OptionalDatasetOption = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Settings after a paper, such as hbf-meld, or the path of a .toml file."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder. Default: a folder in runs/, named after the settings."),
    ] = None,
    modalities: ModalitiesOption = None,
    layer: LayerOption = None,
    protocol: ProtocolOption = None,
    validation: ValidationOption = None,
    target: TargetOption = None,
    classes: ClassesOption = None,
    train_on: TrainOnOption = None,
    test_on: TestOnOption = None,
    class_map: ClassMapOption = None,
    balance: BalanceOption = False,
    seeds: SeedsOption = None,
    fold: Annotated[
        list[str] | None,
        typer.Option(help="Train only this fold, such as Ses01; repeatable. Default: all folds."),
    ] = None,
    leakage_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Further column of the manifest, such as scenario, that the leakage check "
            "compares; repeatable."
        ),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(help="Log to tensorboard, trackio or wandb as well; repeatable."),
    ] = None,
    set_: SetOption = None,
    device: DeviceOption = "auto",
    *,
    place: dict[str, Any],
    as_json: JsonOption = False,
) -> None:
    """Train a head on cached features under a protocol, and write a run folder."""
    check_preset(preset)
    check_head(head)
    check_cached(dataset, cache)
    from ..train import combined, preset_of, settings_of, train_head  # noqa: PLC0415 -- torch takes seconds to import

    given = _given(head, dataset, modalities, layer, protocol, validation, target, classes, seeds)
    given |= _across(dataset, train_on, test_on, class_map, balance)
    settings = settings_of(
        combined(preset_of(preset) if preset else {}, given),
        cache=cache,
        encoders=encoders,
        folds=tuple(fold or ()),
        leakage_columns=tuple(leakage_column or ()),
        track=tuple(track or ()),
        out=out,
        device=device,
        **place,
    )
    print_result(train_head(settings.with_overrides(set_ or [])), as_json)


@app.command(epilog="Example: mser ablate --preset mgcma-table2 --out table2 --workers 4")
@with_encoders(cached=True)
@with_place
def ablate(
    preset: Annotated[
        str,
        typer.Option(
            help="Table to make: mgcma-table2, mgcma-table3, hbf-parts, hbf-modalities, "
            "hbf-encoders, hbaf-parts, hbaf-context, query-masking, fusion, "
            "synthetic-modalities, or the path of a .toml file."
        ),
    ],
    cache: CacheOption,
    encoders: dict[str, str | None],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the table and the runs. Default: a folder in ablations/."),
    ] = None,
    dataset: OptionalDatasetOption = None,
    modalities: ModalitiesOption = None,
    layer: LayerOption = None,
    protocol: ProtocolOption = None,
    validation: ValidationOption = None,
    target: TargetOption = None,
    classes: ClassesOption = None,
    seeds: SeedsOption = None,
    set_: SetOption = None,
    device: DeviceOption = "auto",
    *,
    place: dict[str, Any],
    as_json: JsonOption = False,
) -> None:
    """Train the systems of a paper's table, and write the table. Run it again to continue."""
    check_cached(dataset, cache)
    from ..runs import ablate  # noqa: PLC0415 -- torch takes seconds to import

    table = ablate(
        preset,
        _given(None, dataset, modalities, layer, protocol, validation, target, classes, seeds),
        set_ or [],
        out or Path("ablations") / Path(preset).stem,
        say=(lambda line: None) if as_json else typer.echo,
        cache=cache,
        encoders=encoders,
        device=device,
        **place,
    )
    print_result(table, as_json)


@app.command(epilog="Example: mser probe --dataset meld --protocol official")
@with_encoders(cached=True)
def probe(
    dataset: DatasetOption,
    cache: CacheOption,
    encoders: dict[str, str | None],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the table and the runs. Default: a folder in probes/."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Metric of the picture, such as wa, ua, weighted_f1, macro_f1 or ccc. Default: "
            "that of the target, weighted_f1 for emotion."
        ),
    ] = None,
    pooling: Annotated[
        str, typer.Option(help="What is kept of the frames: mean, or mean_std.")
    ] = "mean",
    modalities: ModalitiesOption = None,
    protocol: ProtocolOption = None,
    validation: ValidationOption = None,
    target: TargetOption = None,
    classes: ClassesOption = None,
    set_: SetOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Probe every cached layer with the linear head: a table, and a picture of the scores."""
    check_cached(dataset, cache)
    from ..runs.probe import probe  # noqa: PLC0415 -- torch takes seconds to import
    from ..train import settings_of  # noqa: PLC0415

    given = _given("linear", dataset, modalities, None, protocol, validation, target, classes, None)
    values = {**given, "head.pooling": pooling, **({"monitor": metric} if metric else {})}
    settings = settings_of(values, cache=cache, encoders=encoders, device=device, workers=workers)
    settings = settings.with_overrides(set_ or [])
    table = probe(settings, out or Path("probes") / dataset, settings.monitor)
    print_result(table, as_json)


@app.command(epilog="Example: mser tune --preset hbf-meld --trials 40")
@with_encoders(cached=True)
def tune(
    preset: Annotated[
        str,
        typer.Option(
            help="Preset to start from, such as hbf-meld, or the path of a .toml file; its table "
            "[tune] gives the ranges."
        ),
    ],
    cache: CacheOption,
    encoders: dict[str, str | None],
    trials: Annotated[int, typer.Option(help="Number of trials, with those done before.")] = 30,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the search. Default: a folder in studies/."),
    ] = None,
    test: Annotated[
        bool,
        typer.Option(help="At the end, train with the best settings and score the test parts."),
    ] = True,
    dataset: OptionalDatasetOption = None,
    modalities: ModalitiesOption = None,
    layer: LayerOption = None,
    protocol: ProtocolOption = None,
    validation: ValidationOption = None,
    target: TargetOption = None,
    classes: ClassesOption = None,
    seeds: SeedsOption = None,
    set_: SetOption = None,
    device: DeviceOption = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes of the last training, whose folds and seeds are independent. Default: "
            "0. Trials follow each other: each depends on those before."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search for better settings on the validation parts, and write them as a preset."""
    check_preset(preset)
    check_cached(dataset, cache)
    from ..train import combined, preset_of  # noqa: PLC0415 -- torch takes seconds to import

    with needs_extra("tune", "optuna"):
        from ..tune import tune  # noqa: PLC0415

    given = _given(None, dataset, modalities, layer, protocol, validation, target, classes, seeds)
    values = combined(preset_of(preset), given)
    folder = out or Path("studies") / Path(preset).stem
    tuning = tune(
        preset,
        values,
        trials,
        folder,
        test=test,
        assignments=set_ or [],
        cache=cache,
        encoders=encoders,
        device=device,
        workers=workers,
    )
    print_result(tuning, as_json)


def _across(
    dataset: str | None,
    train_on: str | None,
    test_on: str | None,
    class_map: Path | None,
    balance: bool,
) -> dict[str, Any]:
    """Return the options of a training across corpora, by their names in a preset."""
    from ..corpora.class_map import read_class_map  # noqa: PLC0415 -- only where it is used

    given: dict[str, Any] = {}
    if train_on is not None:
        if dataset is not None:
            raise UsageError("--dataset and --train-on name the training corpus: give one of them")
        if test_on is None:
            raise UsageError(f"--train-on {train_on} needs --test-on: name the test corpora")
        given["dataset"] = "+".join(split(train_on))
    if test_on is not None:
        given["test_on"] = split(test_on)
    if class_map is not None:
        given["class_map"] = read_class_map(class_map)
    return {**given, "balance": True} if balance else given


def _given(
    head: str | None,
    dataset: str | None,
    modalities: str | None,
    layer: str | None,
    protocol: str | None,
    validation: str | None,
    target: str | None,
    classes: str | None,
    seeds: str | None,
) -> dict[str, Any]:
    """Return the options that the user gave, by their names in a preset."""
    options = {
        "head": head,
        "dataset": dataset,
        "modalities": None if modalities is None else split(modalities),
        "layer": layer,
        "protocol": protocol,
        "validation": validation,
        "target": target,
        "classes": classes,
        "seeds": None if seeds is None else numbers(seeds, "seeds"),
    }
    return {name: value for name, value in options.items() if value is not None}
