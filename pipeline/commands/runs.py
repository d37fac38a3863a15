"""The commands that use finished runs."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import needs_extra
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
        typer.Option(help=f"Metric: {', '.join(METRICS)}. Default: all of them."),
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
    audio: Annotated[Path | None, typer.Option(help="Audio or video file, in any format.")] = None,
    text: Annotated[str | None, typer.Option(help="Transcript of the utterance.")] = None,
    cache: MovedCacheOption = None,
    device: DeviceOption = "auto",
    head: PluginHeadOption = None,
    as_json: JsonOption = False,
) -> None:
    """Classify a clip, a text or both with all checkpoints of a run and the run's encoders."""
    from ..runs.predict import predict  # noqa: PLC0415 -- torch takes seconds to import

    prediction = predict(run, audio, text, encoders=encoders, cache=cache, device=device, head=head)
    print_result(prediction, as_json)


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
        typer.Option(help="Folder for each table as CSV and LaTeX, and each figure as SVG."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML page about one or more runs: scores, confusions, curves, comparisons."""
    from ..runs.report import report  # noqa: PLC0415 -- torch takes seconds to import

    print_result(report(runs, out, groups, by=by, audio=audio, tables=tables), as_json)
