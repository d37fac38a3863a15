"""The commands of stage two."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Cache, Device, Json, numbers, say, split

app = typer.Typer()

OptionalCache = Annotated[
    str | None, typer.Option("--cache", help="Where the features are, if they have moved.")
]
Head = Annotated[
    str | None,
    typer.Option(
        help="linear, distribution, token, instance, bottleneck, mgcma, hbf, hbaf or query."
    ),
]
Dataset = Annotated[str | None, typer.Option(help="Name of the dataset in the cache.")]
Modalities = Annotated[
    str | None, typer.Option(help="Which modalities; by default speech,text.", show_default=False)
]
SpeechEncoder = Annotated[
    str | None, typer.Option(help="Name, folder or key; needed where the cache holds several.")
]
TextEncoder = Annotated[str | None, typer.Option(help="The same for text.")]
Layer = Annotated[
    str | None,
    typer.Option(
        help="mix, last, 6, 0,6,12 or speech=0,1,2,text=last: the encoder's own layer numbers; by "
        "default the head's own choice."
    ),
]
Protocol = Annotated[
    str | None,
    typer.Option(
        help="official, leave-one-session-out, leave-one-speaker-out, speaker-folds, "
        "group-folds:COLUMN:K, hold-out:COLUMN=VALUE or file:PATH; by default the corpus's own."
    ),
]
Classes = Annotated[
    str | None, typer.Option(help="Set of classes, where the corpus has several: 4 or 6.")
]
Seeds = Annotated[str | None, typer.Option(help="Numbers, separated by commas; by default 0.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value, such as epochs=20 or head.width=128; repeatable."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Processes that train folds and seeds side by side, several on one GPU too; by "
        "default this one alone.",
        show_default=False,
    ),
]
Scheduler = Annotated[
    str | None, typer.Option(help="Train at a running Dask scheduler, such as tcp://node1:8786.")
]
WaitMinutes = Annotated[
    float | None,
    typer.Option(
        help="How long --scheduler (1) or --slurm (10) may be without any worker.",
        show_default=False,
    ),
]
Slurm = Annotated[
    Path | None, typer.Option(help="Train in SLURM jobs, as a TOML file describes them.")
]


@app.command(epilog="Example: mser train-head --dataset meld --head hbf --seeds 0,1,2")
def train_head(
    cache: Cache,
    head: Head = None,
    dataset: Dataset = None,
    preset: Annotated[
        str | None,
        typer.Option(help="A paper's settings, such as hbf-meld, or the path of a .toml file."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder; by default one below runs/, named by what is asked."),
    ] = None,
    modalities: Modalities = None,
    speech_encoder: SpeechEncoder = None,
    text_encoder: TextEncoder = None,
    layer: Layer = None,
    protocol: Protocol = None,
    classes: Classes = None,
    seeds: Seeds = None,
    set_: Set = None,
    device: Device = "auto",
    workers: Workers = None,
    scheduler: Scheduler = None,
    slurm: Slurm = None,
    wait_minutes: WaitMinutes = None,
    as_json: Json = False,
) -> None:
    """Train a head on cached features by a protocol, and write a run folder."""
    from ..train import combined, preset_of, settings_of, train_head  # noqa: PLC0415 -- torch takes seconds

    given = _given(head, dataset, modalities, layer, protocol, classes, seeds)
    settings = settings_of(
        combined(preset_of(preset) if preset else {}, given),
        cache=cache,
        encoders={"speech": speech_encoder, "text": text_encoder},
        out=out,
        device=device,
        workers=workers,
        scheduler=scheduler,
        slurm=slurm,
        wait_minutes=wait_minutes,
    )
    say(train_head(settings.with_overrides(set_ or [])), as_json)


@app.command(epilog="Example: mser evaluate runs/meld-hbf-1f3c22aa --missing speech")
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    missing: Annotated[
        str, typer.Option(help="Modalities that the head does not get to see, such as speech.")
    ] = "",
    cache: OptionalCache = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score the heads of a run on their test parts again, perhaps with a modality missing."""
    from ..runs import evaluate  # noqa: PLC0415

    say(evaluate(run, split(missing), cache, device), as_json)


@app.command(epilog="Example: mser compare runs/meld-linear runs/meld-hbf --metric weighted_f1")
def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, such as the baseline.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder to hold against it.")],
    metric: Annotated[
        str | None, typer.Option(help="wa, ua, weighted_f1 or macro_f1; by default all of them.")
    ] = None,
    resamples: Annotated[int, typer.Option(help="Draws of the bootstrap.")] = 2000,
    as_json: Json = False,
) -> None:
    """Say how far two runs on the same test utterances differ, and how sure that is."""
    from ..evaluation.compare import compare  # noqa: PLC0415 -- imports scikit-learn

    say(compare(first, second, metric, resamples=resamples), as_json)


@app.command(epilog="Example: mser ablate --preset mgcma-table2 --out table2 --workers 4")
def ablate(
    preset: Annotated[
        str,
        typer.Option(
            help="mgcma-table2, mgcma-table3, hbf-parts, hbaf-parts, query-masking, fusion, or the "
            "path of a .toml file."
        ),
    ],
    cache: Cache,
    out: Annotated[
        Path | None, typer.Option(help="Where the table and the runs go; by default ablations/.")
    ] = None,
    dataset: Dataset = None,
    modalities: Modalities = None,
    speech_encoder: SpeechEncoder = None,
    text_encoder: TextEncoder = None,
    layer: Layer = None,
    protocol: Protocol = None,
    classes: Classes = None,
    seeds: Seeds = None,
    set_: Set = None,
    device: Device = "auto",
    workers: Workers = None,
    scheduler: Scheduler = None,
    slurm: Slurm = None,
    wait_minutes: WaitMinutes = None,
    as_json: Json = False,
) -> None:
    """Train the systems of a paper's table, and write the table; interrupted, it goes on."""
    from ..runs import ablate  # noqa: PLC0415

    table = ablate(
        preset,
        _given(None, dataset, modalities, layer, protocol, classes, seeds),
        set_ or [],
        out or Path("ablations") / Path(preset).stem,
        say=(lambda line: None) if as_json else typer.echo,
        cache=cache,
        encoders={"speech": speech_encoder, "text": text_encoder},
        device=device,
        workers=workers,
        scheduler=scheduler,
        slurm=slurm,
        wait_minutes=wait_minutes,
    )
    say(table, as_json)


@app.command(epilog="Example: mser predict runs/meld-hbf-1f3c22aa --audio clip.mp4 --text 'Oh no.'")
def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    audio: Annotated[Path | None, typer.Option(help="A clip, in any format.")] = None,
    text: Annotated[str | None, typer.Option(help="What is said in it.")] = None,
    speech_encoder: Annotated[
        str | None, typer.Option(help="Where the run's encoder is now, if not where it was.")
    ] = None,
    text_encoder: TextEncoder = None,
    cache: OptionalCache = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Classify a clip, a text or both with all checkpoints of a run, through its own encoders."""
    from ..runs.predict import predict  # noqa: PLC0415

    encoders = {"speech": speech_encoder, "text": text_encoder}
    say(predict(run, audio, text, encoders=encoders, cache=cache, device=device), as_json)


@app.command(epilog="Example: mser report runs/meld-linear runs/meld-hbf --out report.html")
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished run folders.")],
    out: Annotated[Path, typer.Option(help="Where to write the page.")] = Path("report.html"),
    as_json: Json = False,
) -> None:
    """Write one HTML page on one or several runs: scores, confusions, curves, comparisons."""
    from ..runs.report import report  # noqa: PLC0415

    say(report(runs, out), as_json)


def _given(
    head: str | None,
    dataset: str | None,
    modalities: str | None,
    layer: str | None,
    protocol: str | None,
    classes: str | None,
    seeds: str | None,
) -> dict[str, Any]:
    """Return what the user says, by the names of a preset."""
    said = {
        "head": head,
        "dataset": dataset,
        "modalities": None if modalities is None else split(modalities),
        "layer": layer,
        "protocol": protocol,
        "classes": classes,
        "seeds": None if seeds is None else numbers(seeds, "seeds"),
    }
    return {name: value for name, value in said.items() if value is not None}
