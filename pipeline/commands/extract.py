"""The command of stage one."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from .names import check_dataset
from .options import (
    USUAL_MODALITIES,
    CacheOption,
    ClassesOption,
    CompressionOption,
    DeviceOption,
    JsonOption,
    ManifestOption,
    ModalitiesOption,
    ReplaceOption,
    StoreOption,
    print_result,
    split,
    with_encoders,
    with_place,
)

app = typer.Typer()


@app.command(
    epilog="Example: mser extract --dataset meld --root /data/MELD.Raw --cache /cluster/mser"
)
@with_encoders(cached=False)
@with_place
def extract(
    dataset: Annotated[
        str,
        typer.Option(
            help="Corpus: crema-d, emobox, emodb, esd, iemocap, meld, mosei, msp-podcast, ravdess, "
            "synthetic, synthetic-other, manifest, or one of a plug-in, such as file.py:load."
        ),
    ],
    cache: CacheOption,
    encoders: dict[str, str],
    root: Annotated[Path | None, typer.Option(help="Folder of the corpus.")] = None,
    manifest: ManifestOption = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the corpus of --manifest in the cache.")
    ] = None,
    classes: ClassesOption = None,
    modalities: ModalitiesOption = USUAL_MODALITIES,
    layers: Annotated[
        str, typer.Option(help="Layers to store: all, last, or numbers such as 0,6,12.")
    ] = "all",
    frames: Annotated[
        str,
        typer.Option(
            help="Frames to store: all, mean (one vector for each utterance), or N (means of N "
            "consecutive frames)."
        ),
    ] = "all",
    dtype: Annotated[
        str,
        typer.Option(
            help="Type of the stored features: float16, float32, bfloat16 (the range of float32), "
            "or int8 (half the size of float16)."
        ),
    ] = "float16",
    precision: Annotated[
        str,
        typer.Option(
            help="Precision of the forward pass: float32, bfloat16, float16, or on a GPU tf32."
        ),
    ] = "float32",
    max_seconds: Annotated[
        float,
        typer.Option(help="Longest audio encoded whole; longer audio is cut into windows (s)."),
    ] = 30.0,
    fps: Annotated[float, typer.Option(help="Frames a second that are taken of a video.")] = 5.0,
    video_frames: Annotated[
        int | None,
        typer.Option(help="Take N frames of each video, evenly spaced, instead of --fps."),
    ] = None,
    faces: Annotated[
        str,
        typer.Option(
            help="Part of a frame: none (the whole frame), FOLDER (crops by utterance), yunet (the "
            "largest face, followed), or the file of YuNet's weights."
        ),
    ] = "none",
    no_face: Annotated[
        str, typer.Option(help="Without a face: frame (whole frames) or quarantine.")
    ] = "frame",
    device: DeviceOption = "auto",
    *,
    place: dict[str, Any],
    store: StoreOption = "zarr",
    compression: CompressionOption = "none",
    shard_mib: Annotated[
        float | None,
        typer.Option(
            help="Largest size of a shard in MiB; a killed worker loses at most one shard. "
            "Default: 64, on a GPU 256."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use only the first N utterances.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first bad utterance.")
    ] = False,
    replace: ReplaceOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be done.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run frozen encoders over a corpus and store their hidden layers in the cache."""
    from ..compute.fork_server import early_server  # noqa: PLC0415 -- --help does not need it
    from ..extract.worker_imports import WORKER_IMPORTS  # noqa: PLC0415

    elsewhere = place["scheduler"] is not None or place["slurm"] is not None
    here = not elsewhere and place["workers"] != 0 and not dry_run
    with early_server(WORKER_IMPORTS) if here else nullcontext():
        check_dataset(dataset)
        from ..extract import ExtractSettings, extract  # noqa: PLC0415 -- torch takes seconds to import

        summary = extract(
            ExtractSettings(
                dataset=dataset,
                root=root,
                manifest=manifest,
                name=name,
                classes=classes,
                cache=cache,
                encoders={name: encoders.get(name, "") for name in split(modalities or "")},
                layers=layers,
                stored_frames=frames,
                dtype=dtype,
                precision=precision,
                max_seconds=max_seconds,
                fps=fps,
                video_frames=video_frames,
                faces=faces,
                no_face=no_face,
                device=device,
                **place,
                limit=limit,
                strict=strict,
                replace=replace,
                dry_run=dry_run,
                shard_mib=shard_mib,
                store=store,
                compression=compression,
            )
        )
    print_result(summary, as_json)
