"""What one GPU does: extraction beside its bare forward passes, and the heads of the presets.

All data are **synthetic** and all encoders have **random** weights. Nothing here is measured
without a GPU; the other scripts take ``--device cuda``, too.

* ``extract``: an hour of clips (AAC in mp4) with wav2vec2-base and BERT-base, and with encoders of
  large size, in each precision. The bare passes get the same batches, already on the GPU, and leave
  the hidden states of all layers there as float16.
* ``heads``: an epoch of each preset's head, with the settings of the preset.
* ``together``: fifteen trainings of hbf on the demo's corpus, one after another and side by side.

Run it with ``python benchmarks/gpu.py --device cuda`` or ``python -m mser.benchmarks.gpu``.
"""

import csv
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mser.benchmarks.extract import BASE, CONVOLUTIONS, POSITIONS
from mser.benchmarks.extract_mser import WarmExtraction
from mser.benchmarks.forward_passes import Job
from mser.benchmarks.frame_errors import frame_errors
from mser.benchmarks.results import (
    Measurement,
    Rows,
    RunOptions,
    Table,
    Value,
    main,
    quartiles,
)
from mser.benchmarks.synthetic_clips import make_corpus
from mser.benchmarks.train import IEMOCAP_ALL, timed
from mser.benchmarks.train_data import IEMOCAP, make_examples
from mser.benchmarks.train_steps import Training
from mser.cache import FeatureCache
from mser.pipeline.compute.device import cores
from mser.pipeline.corpora import synthetic
from mser.pipeline.corpora.manifest_file import read_manifest
from mser.pipeline.demo import demo
from mser.pipeline.encoders.encoder import Encoder
from mser.pipeline.encoders.random_encoders import save_speech_encoder, save_text_encoder
from mser.pipeline.encoders.windows import WindowPosition, in_batches, stacked
from mser.pipeline.extract import load_encoder
from mser.pipeline.extract.audio import decode, read_clip
from mser.pipeline.train import TrainSettings, train_head
from mser.pipeline.train.determinism import reproducible
from mser.pipeline.train.features import FeatureLoader
from mser.pipeline.train.presets import preset, settings_of

MODALITIES = ("speech", "text")
LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
TINY: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
PRECISIONS = ("float32", "tf32", "bfloat16")
SIZES = {"base size": BASE, "large size": LARGE}
MINUTES = {"base size": 60.0, "large size": 15.0}
SMALL_MINUTES = 0.5
COMPARED = 20  # utterances whose stored features are compared with a pass over each alone
PRESETS = ("hbf-iemocap", "query-iemocap", "hbaf-iemocap", "mgcma-iemocap")
SHARE = 4  # an epoch is measured on this part of IEMOCAP's utterances
EPOCHS, SEEDS, WORKERS = 10, (0, 1, 2), (0, 8)

EXTRACT_NOTE = (
    "× real time is the length of the clips divided by the time. mser's time goes from the clips "
    "to committed shards of float16 features of all layers, with workers that have loaded the "
    "encoders. *Bare passes* are the forward passes alone. *Plain writing* is the time to write as "
    "many bytes into files, in as many threads, with `fsync`. The error is that of the stored "
    f"features of {COMPARED} utterances against a float32 pass over each utterance alone, relative "
    "to the norm of a frame: the median over frames; float16 alone rounds by about 2e-4."
)
HEADS_NOTE = (
    "Random features in the shape of wav2vec2-base and BERT-base, 4.5 s on average, in the memory "
    f"of the GPU. Measured on a {SHARE}th of IEMOCAP's {IEMOCAP_ALL} utterances, and extrapolated. "
    "The scoring of the validation part is not included. Utterances have no dialogues here, so "
    "hbaf's turns are alone."
)
TOGETHER_NOTE = (
    f"Five folds, three seeds and {EPOCHS} epochs of hbf (the defaults) on the demo's synthetic "
    "corpus. The time is that of the whole command, with the start of the workers. 0 workers: one "
    "training after another."
)


def extract(folder: Path, options: RunOptions) -> list[Table]:
    """Extract a corpus with each encoder size and precision."""
    rows: Rows = {}
    for size, shape in {"tiny": TINY}.items() if options.small else SIZES.items():
        manifest = make_clips(folder / size / "corpus", MINUTES.get(size, SMALL_MINUTES))
        inputs = read_all(manifest)
        seconds = sum(map(len, inputs["speech"])) / 16_000
        speech = {} if options.small else {**shape, **CONVOLUTIONS, **POSITIONS}
        words = synthetic.SENTENCE_WORDS
        encoders = {
            "speech": save_speech_encoder(folder / size / "speech", **speech),
            "text": save_text_encoder(folder / size / "text", words, **shape),
        }
        for precision in PRECISIONS if options.device.type == "cuda" else ("float32", "bfloat16"):
            job = Job(manifest, encoders, options.device.type, folder, precision)
            name = f"{size}, {precision}"
            rows[name] = _extract(job, inputs, seconds, options.rounds)
            options.log(f"{name}: {rows[name]}")
    return [Table("Extraction on a GPU: synthetic clips, random weights", rows, EXTRACT_NOTE)]


def _extract(
    job: Job, inputs: Mapping[str, list[Any]], seconds: float, rounds: int
) -> dict[str, Value]:
    bare = [sum(bare_seconds(job, inputs)) for _ in range(rounds)]
    with closing(WarmExtraction(job)) as warm:
        with tempfile.TemporaryDirectory(dir=job.work) as cache:
            warm.extract(Path(cache), MODALITIES, "float16")  # not timed: it loads the encoders
            size = sum(file.stat().st_size for file in Path(cache).rglob("*") if file.is_file())
            error = stored_error(job, Path(cache), inputs)
        spent = [warm.seconds(MODALITIES, "float16") for _ in range(rounds)]
    written = [plain_writing(job.work, size) for _ in range(rounds)]
    shares = [b / s for b, s in zip(bare, spent, strict=True)]
    return {
        "bare passes, × real time": seconds / quartiles(bare)[0],
        "mser, × real time": seconds / quartiles(spent)[0],
        "bare passes ÷ mser": quartiles(shares),
        "plain writing ÷ mser": quartiles([w / s for w, s in zip(written, spent, strict=True)]),
        "GB written": size / 1e9,
        "error": error,
    }


def make_clips(folder: Path, minutes: float) -> Path:
    """Make the clips in several processes; return the manifest."""
    parts = cores()
    folders = [folder / str(part) for part in range(parts)]
    with ProcessPoolExecutor(parts) as pool:
        manifests = list(pool.map(make_corpus, folders, [minutes / parts] * parts, range(parts)))
    rows = []
    for part in manifests:
        with part.open(encoding="utf-8", newline="") as file:
            for id, audio, text in list(csv.reader(file))[1:]:
                name = part.parent.name
                rows.append((f"{name}_{id}", f"{name}/{audio}", text))
    manifest = folder / "corpus.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "audio", "text"), *rows])
    return manifest


def read_all(manifest: Path) -> dict[str, list[Any]]:
    """Return the ids, the waves and the texts of all utterances."""
    utterances = read_manifest(manifest, "measured").utterances
    with ThreadPoolExecutor(cores()) as pool:
        waves = list(pool.map(lambda u: decode(read_clip(u.audio)), utterances))
    return {
        "id": [utterance.id for utterance in utterances],
        "speech": waves,
        "text": [utterance.text for utterance in utterances],
    }


def bare_seconds(job: Job, inputs: Mapping[str, list[Any]]) -> Iterator[float]:
    """Yield the time of the forward passes of each modality."""
    for modality in MODALITIES:
        encoder: Encoder[Any] = load_encoder(
            str(job.encoders[modality]), device=job.device, precision=job.precision
        )
        windows = [
            WindowPosition(window, 0, 0)
            for raw in inputs[modality]
            for window in encoder.prepare(raw)
        ]
        batches = []
        for batch in in_batches(windows, encoder.frames_at_once, padded=encoder.padded):
            values, lengths = stacked([item.window for item in batch], encoder.padding)
            batches.append((torch.from_numpy(values).to(encoder.device), lengths))

        def passes(
            encoder: Encoder[Any] = encoder, batches: list[Any] = batches, limit: int | None = None
        ) -> float:
            for values, lengths in batches[:limit]:
                encoder.states(values, lengths, "float16")
            return 0.0

        passes(limit=2)  # warms up
        yield timed(passes, encoder.device)


def plain_writing(folder: Path, size: int) -> float:
    """Return the seconds that it takes to write ``size`` bytes in 256 MiB files with ``fsync``."""
    block = np.random.default_rng(0).bytes(2**28)
    with tempfile.TemporaryDirectory(dir=folder) as temporary, ThreadPoolExecutor(cores()) as pool:

        def write(number: int) -> None:
            with (Path(temporary) / str(number)).open("wb") as file:
                file.write(block[: max(0, min(2**28, size - number * 2**28))])
                file.flush()
                os.fsync(file.fileno())

        begin = time.perf_counter()
        list(pool.map(write, range(-(-size // 2**28))))
        return time.perf_counter() - begin


def stored_error(job: Job, cache: Path, inputs: Mapping[str, list[Any]]) -> float:
    """Return the median error of the stored features of some utterances, of both modalities."""
    errors = []
    for modality in MODALITIES:
        entry = FeatureCache(cache).open("measured", modality=modality)
        encoder = load_encoder(str(job.encoders[modality]), device=job.device)
        for id, raw in list(zip(inputs["id"], inputs[modality], strict=True))[:COMPARED]:
            (reference,) = encoder.encode([raw])
            errors.append(frame_errors(entry[id], reference).ravel())
    return float(np.median(np.concatenate(errors)))


def heads(folder: Path, options: RunOptions) -> list[Table]:
    """Train an epoch of the head of each preset."""
    count = 16 if options.small else IEMOCAP_ALL // SHARE
    rows: Rows = {}
    entries = {}
    for name in PRESETS:
        values = preset(name)
        layers = 1 if values.get("layer") == "last" else 13
        if layers not in entries:
            entries[layers] = make_examples(folder / str(layers), count, IEMOCAP, layers)
        with reproducible():
            encoders: dict[str, str | None] = dict.fromkeys(MODALITIES)
            settings = settings_of(
                values, cache=folder, encoders=encoders, device=options.device.type
            )
            training = Training(settings, entries[layers], options.device)
            features = FeatureLoader(entries[layers], training.layers, options.device, "memory")
            epoch = partial(training.epoch, features)
            epoch()  # warms up
            spent = [timed(epoch, options.device) for _ in range(options.rounds)]
        rows[name] = {
            "batch size": settings.batch_size,
            "ms per utterance": 1e3 * quartiles(spent)[0] / count,
            f"s per epoch of {IEMOCAP_ALL} utterances": quartiles(
                [value / count * IEMOCAP_ALL for value in spent]
            ),
        }
        options.log(f"{name}: {rows[name]}")
    return [Table("Epochs on a GPU: synthetic features", rows, HEADS_NOTE)]


def together(folder: Path, options: RunOptions) -> list[Table]:
    """Train fifteen small heads one after another and side by side."""
    demo(folder / "demo", options.log, 40 if options.small else 480)
    rows: Rows = {}
    for workers in WORKERS[:1] if options.small else WORKERS:
        settings = TrainSettings(
            head="hbf",
            dataset="synthetic",
            cache=folder / "demo" / "cache",
            encoders=dict.fromkeys(MODALITIES),
            protocol="speaker-folds",
            runs=folder / f"runs{workers}",
            seeds=SEEDS,
            epochs=2 if options.small else EPOCHS,
            device=options.device.type,
            workers=workers,
        )
        begin = time.perf_counter()
        train_head(settings)
        rows[f"{workers} workers"] = {"seconds": time.perf_counter() - begin}
        options.log(f"{workers} workers: {rows[f'{workers} workers']}")
    return [Table("Fifteen trainings of hbf: synthetic corpus", rows, TOGETHER_NOTE)]


SECTIONS = (extract, heads, together)


def measure(options: RunOptions) -> Measurement:
    tables: list[Table] = []
    for section in SECTIONS:
        if options.includes(section.__name__):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                tables += section(Path(folder), options)
    return Measurement(
        tables, {"minutes of clips": SMALL_MINUTES if options.small else str(MINUTES)}
    )


if __name__ == "__main__":
    main(
        "gpu",
        __doc__.partition("\n")[0],
        measure,
        (3, 2),
        [section.__name__ for section in SECTIONS],
    )
