"""How fast the pictures of a corpus are extracted, compared with bare forward passes.

The encoder is a ViT-B with **random** weights (12 layers, 768 wide). The clips are **synthetic**,
in the format of MELD's (H.264, 1280 x 720, 25 frames a second), with lengths as there. Both methods
encode five frames of each second. mser decodes the clips, chooses, resizes and encodes the frames,
and writes the features; the bare passes have the resized frames in memory and write nothing.

Run it with ``python benchmarks/vision.py`` or ``python -m mser.benchmarks.vision``.
"""

import csv
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from mser.benchmarks.extract_mser import WarmExtraction
from mser.benchmarks.forward_passes import Job
from mser.benchmarks.frame_errors import median_and_largest
from mser.benchmarks.persistent_process import PersistentProcess
from mser.benchmarks.results import (
    Measurement,
    Rows,
    RunOptions,
    Table,
    main,
    quartiles,
    ratios,
    shuffled_turns,
)
from mser.pipeline.compute.device import cores
from mser.pipeline.compute.fork_server import MALLOC_ENVIRONMENT
from mser.pipeline.encoders.random_encoders import save_vision_encoder

RATE, FPS = 25, 5  # frames of a clip, and encoded frames, in a second
SIZES = {"small": (120, 160), "full": (720, 1280)}
MINUTES = {"small": 0.2, "full": 0.75}
MODELS: dict[str, dict[str, Any]] = {
    "ViT-B/32": {"patch_size": 32},
    "ViT-B/16": {"patch_size": 16},
}
BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "image_size": 224,
}
BATCH = 16
MSER, PASSES = "mser", "transformers, bare forward passes"
PREPARING, ENCODING = "decoding and resizing a frame", "forward pass of a frame"
MAX_ERROR = 1e-5
NOTE = (
    "Seconds are medians; *mser ÷ bare passes* is the ratio of the speeds within a round (median "
    "and quartiles). mser's time goes from mp4 clips to committed shards, with workers that have "
    "loaded the encoder. The bare passes have an advantage: their frames are decoded and resized "
    "before, and they keep and write nothing. They run in batches of 16, in one process of one "
    "thread for each core, in which glibc keeps freed memory. The errors are those of features "
    "stored as float32, against the bare passes, relative to the norm of a frame of a layer. On "
    "a CPU, the last column is the ratio of an extraction that adds nothing to the passes but "
    "PyAV's decoding and Pillow's resizing, on the same cores; a clip is decoded as a whole."
)


def make_clips(folder: Path, minutes: float, size: tuple[int, int]) -> Path:
    """Write clips of a moving picture; return the manifest."""
    rng = np.random.default_rng(0)
    height, width = size
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    scene = coarse.repeat(16, axis=0).repeat(16, axis=1)  # twice the size of a frame
    rows, total = [("id", "video")], 0.0
    folder.mkdir(parents=True)
    while total < 60 * minutes:
        seconds = float(np.clip(rng.lognormal(np.log(2.5), 0.6), 0.5, 15))
        id = f"utt{len(rows)}"
        with av.open(str(folder / f"{id}.mp4"), "w") as file:
            stream: Any = file.add_stream("libx264", rate=RATE)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for number in range(int(seconds * RATE)):
                shift = 2 * number % (height // 2)
                picture = np.ascontiguousarray(scene[shift : shift + height, shift : shift + width])
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            file.mux(stream.encode(None))
        rows.append((id, f"{id}.mp4"))
        total += seconds
    manifest = folder / "corpus.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return manifest


class BarePasses:
    """A model of transformers and the resized frames of a share of the clips."""

    def __init__(self, job: Job, part: int, parts: int) -> None:
        from transformers import AutoImageProcessor, AutoModel  # noqa: PLC0415
        from transformers.utils import logging  # noqa: PLC0415

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        torch.set_num_threads(max(1, cores() // parts))
        self.job = job
        folder = job.encoders["vision"]
        self.model = AutoModel.from_pretrained(folder).to(job.device).eval()
        processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)
        clips = sorted(job.manifest.parent.glob("*.mp4"))[part::parts]
        started = time.process_time()
        self.frames = {
            clip.stem: processor(_frames(clip), return_tensors="pt")["pixel_values"]
            for clip in clips
        }
        self.core_seconds = {PREPARING: time.process_time() - started, ENCODING: 0.0}

    def seconds(self) -> float:
        """Encode all frames in full batches; return the time."""
        everything = torch.cat(list(self.frames.values()))
        started, busy = time.perf_counter(), time.process_time()
        for batch in everything.split(BATCH):
            self._states(batch)
        if self.job.device == "cuda":
            torch.cuda.synchronize()
        self.core_seconds[ENCODING] = time.process_time() - busy
        return time.perf_counter() - started

    def spent(self) -> dict[str, float]:
        """Return the time of cores for decoding and resizing, and for the newest passes."""
        return self.core_seconds

    def save_reference(self) -> int:
        """Write (layers, frames, dim) of each clip; return the number of frames."""
        for id, frames in self.frames.items():
            path = self.job.reference("vision", id)
            path.parent.mkdir(parents=True, exist_ok=True)
            states = [
                torch.cat([layer[:, 0], layer[:, 1:].mean(dim=1)], dim=-1)
                for layer in self._states(frames)
            ]
            np.save(path, torch.stack(states).cpu().numpy())
        return sum(map(len, self.frames.values()))

    @torch.inference_mode()
    def _states(self, frames: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result = self.model(frames.to(self.job.device), output_hidden_states=True)
        states: tuple[torch.Tensor, ...] = result.hidden_states
        return states


def _frames(clip: Path) -> list[Any]:
    """Every fifth frame, RGB: those that are shown at 0, 200, 400 … ms."""
    with av.open(str(clip)) as file:
        decoded = list(file.decode(video=0))
    return [frame.to_ndarray(format="rgb24") for frame in decoded[:: RATE // FPS]]


def compare(job: Job, options: RunOptions) -> tuple[dict[str, Any], int]:
    """Check the features, then time both methods in turn; return the row of mser."""
    parts = cores() if options.device.type == "cpu" else 1
    with ExitStack() as processes:
        keeps = MALLOC_ENVIRONMENT if options.device.type == "cpu" else {}
        bare = [
            processes.enter_context(
                PersistentProcess(BarePasses, job, part, parts, environment=keeps)
            )
            for part in range(parts)
        ]
        frames = sum([each.call("save_reference").result() for each in bare])
        mser = processes.enter_context(PersistentProcess(WarmExtraction, job))
        errors = mser.call("errors", ["vision"], "float32").result()["vision"]
        assert errors.max() < MAX_ERROR, errors.max()
        seconds: dict[str, list[float]] = {MSER: [], PASSES: []}
        for number, name in shuffled_turns([MSER, PASSES], options.rounds):
            if name == MSER:
                spent = mser.call("seconds", ["vision"], "float16").result()
            else:
                calls = [each.call("seconds") for each in bare]
                spent = max(call.result() for call in calls)
            seconds[name].append(spent)
            options.log(f"round {number + 1}: {name}: {spent:.1f} s")
        spent_by = [each.call("spent").result() for each in bare]
    row = {
        "frames a second, mser": frames / quartiles(seconds[MSER])[0],
        "frames a second, bare passes": frames / quartiles(seconds[PASSES])[0],
        "mser ÷ bare passes": ratios(seconds[PASSES], seconds[MSER]),
        **median_and_largest("float32", errors),
    }
    if options.device.type == "cpu":
        cost = {what: sum(each[what] for each in spent_by) for what in (PREPARING, ENCODING)}
        row |= {f"{what}, ms of a core": 1000 * cost[what] / frames for what in cost}
        row["passes ÷ (passes + decoding and resizing)"] = cost[ENCODING] / sum(cost.values())
    return row, frames


def measure(options: RunOptions) -> Measurement:
    form = "small" if options.small else "full"
    rows: Rows = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        work = Path(folder)
        manifest = make_clips(work / "clips", MINUTES[form], SIZES[form])
        frames = 0
        for name, patches in MODELS.items():
            size: Mapping[str, Any] = {} if options.small else {**BASE, **patches}
            encoder = save_vision_encoder(work / name.replace("/", "-"), **size)
            job = Job(manifest, {"vision": encoder}, options.device.type, work / f"of-{len(rows)}")
            job.work.mkdir()
            rows[name], frames = compare(job, options)
    height, width = SIZES[form]
    settings = {
        "clips": f"H.264, {width} x {height}, {RATE} frames a second",
        "encoded frames": frames,
        "encoders": "4 layers, 64 wide" if options.small else "12 layers, 768 wide",
        "weights": "random",
        "precision": "float32",
    }
    return Measurement(
        [Table("Extraction of pictures: synthetic clips, random weights", rows, NOTE)], settings
    )


if __name__ == "__main__":
    main("vision", "How fast pictures are extracted, beside bare passes.", measure, (3, 2))
