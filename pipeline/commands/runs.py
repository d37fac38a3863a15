"""The commands that use finished runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UsageError, needs_extra
from ..evaluation.registry import METRICS
from .options import (
    DeviceOption,
    GroupsOption,
    JsonOption,
    MovedCacheOption,
    PluginHeadOption,
    RunArgument,
    print_result,
    split,
    with_encoders,
)

app = typer.Typer()


@app.command(epilog="Example: mser evaluate runs/meld-hbf-1f3c22aa --missing speech")
def evaluate(
    run: RunArgument,
    missing: Annotated[
        str, typer.Option(help="Modalities to hide from the head, such as speech.")
    ] = "",
    cache: MovedCacheOption = None,
    device: DeviceOption = "auto",
    groups: GroupsOption = None,
    head: PluginHeadOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score the heads of a run on their test parts again, with modalities missing if you like."""
    from ..runs import evaluate  # noqa: PLC0415 -- torch takes seconds to import

    print_result(evaluate(run, split(missing), cache, device, groups, head=head), as_json)


@app.command(epilog="Example: mser compare runs/meld-linear runs/meld-hbf --metric weighted_f1")
def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, such as the baseline.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder to compare with it.")],
    metric: Annotated[
        str | None,
        typer.Option(
            help=f"Metric: {', '.join(METRICS)}, or one of another target, such as ccc. Default: "
            "all of the target."
        ),
    ] = None,
    resamples: Annotated[int, typer.Option(help="Number of bootstrap resamples.")] = 2000,
    groups: GroupsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test whether two runs on the same test utterances differ significantly."""
    from ..evaluation.compare import compare  # noqa: PLC0415 -- imports scikit-learn

    print_result(compare(first, second, metric, resamples=resamples, groups=groups), as_json)


@app.command(epilog="Example: mser predict runs/meld-hbf-1f3c22aa --audio clip.mp4 --text 'Oh no.'")
@with_encoders(cached=True)
def predict(
    run: RunArgument,
    encoders: dict[str, str | None],
    audio: Annotated[
        Path | None,
        typer.Option(help="Audio or video file, in any format; or with --out a folder of clips."),
    ] = None,
    text: Annotated[str | None, typer.Option(help="Transcript of the utterance.")] = None,
    video: Annotated[
        Path | None,
        typer.Option(
            help="Video that shows the speaker. Its sound is used unless --audio is given."
        ),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="Table of many utterances: .csv, .tsv, .jsonl or .parquet."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="CSV file for the predictions of --manifest or a folder.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="Cache that keeps the features of --manifest or a folder, for other runs. "
            "Default: a folder beside --out, deleted at the end."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Worker processes that extract; 0: this process. Default: by machine."),
    ] = None,
    cache: MovedCacheOption = None,
    device: DeviceOption = "auto",
    head: PluginHeadOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict a clip, a text, a video or all of them with a run's encoders and checkpoints.

    With --manifest, or a folder in --audio, all its utterances are classified, into --out. If the
    command was killed, the same command continues.
    """
    from ..runs.predict import predict  # noqa: PLC0415 -- torch takes seconds to import
    from ..runs.predict_many import predict_many  # noqa: PLC0415

    shared: dict[str, Any] = {"encoders": encoders, "cache": cache, "device": device, "head": head}
    source = _many(audio, text, video, manifest, out)
    if source is None:
        only_many = {"--out": out, "--features": features, "--workers": workers}
        for option, value in only_many.items():
            if value is not None:
                raise UsageError(f"{option} is for --manifest or a folder of clips: leave it out")
        print_result(predict(run, audio, text, video=video, **shared), as_json)
    else:
        shared |= {"features": features, "workers": workers}
        print_result(predict_many(run, source, out or "", **shared), as_json)


def _many(
    audio: Path | None,
    text: str | None,
    video: Path | None,
    manifest: Path | None,
    out: Path | None,
) -> Path | None:
    """Return the manifest or the folder of many utterances; ``None`` for one utterance."""
    if manifest is None and not (audio is not None and audio.is_dir()):
        return None
    if manifest is not None and audio is not None:
        raise UsageError("--manifest names the clips: leave out --audio")
    if text is not None:
        raise UsageError("--text is for one clip: give a --manifest with a column text")
    if video is not None:
        raise UsageError("--video is for one clip: give a --manifest with a column video")
    if out is None:
        raise UsageError(
            f"'{manifest or audio}' has many utterances: give --out FILE.csv for the predictions"
        )
    return manifest or audio


@app.command(epilog="Example: mser serve runs/meld-hbf-1f3c22aa")
@with_encoders(cached=True)
def serve(
    run: RunArgument,
    encoders: dict[str, str | None],
    port: Annotated[int, typer.Option(help="Port of the page; 0 for any that is free.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen at. The default is for this machine alone.")
    ] = "127.0.0.1",
    cache: MovedCacheOption = None,
    device: DeviceOption = "auto",
    head: PluginHeadOption = None,
) -> None:
    """Serve a page on this machine: drop or record a clip, type the text, see the prediction."""
    with needs_extra("serve", "starlette", "uvicorn"):
        from ..serve import serve  # noqa: PLC0415 -- torch takes seconds to import

    options = {"encoders": encoders, "cache": cache, "device": device, "head": head}
    serve(run, host=host, port=port, say=typer.echo, **options)


@app.command(epilog="Example: mser report runs/meld-linear runs/meld-hbf --out report.html")
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished run folders.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    groups: GroupsOption = None,
    by: Annotated[
        str | None,
        typer.Option(help="Score by this column of the corpus too, such as scenario."),
    ] = None,
    audio: Annotated[
        bool, typer.Option("--audio", help="Put the clips of the surest mistakes into the page.")
    ] = False,
    tables: Annotated[
        Path | None,
        typer.Option(help="Folder for tables as CSV and LaTeX, and figures as SVG and PDF."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML page about one or more runs: scores, confusions, curves, comparisons."""
    from ..runs.report import report  # noqa: PLC0415 -- torch takes seconds to import

    print_result(report(runs, out, groups, by=by, audio=audio, tables=tables), as_json)
