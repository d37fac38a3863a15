"""What smaller caches cost: bytes, reading speed, errors, and the scores of heads.

Three corpora are stored as float32, and every other form is made from the same numbers, as an
extraction would round them: float16, bfloat16, int8, and one mean for each utterance.

* ``emodb``: EmoDB's voices as eGeMAPS descriptors. Needs ``--emodb``, see ``score_data.py``.
* ``meld``: MELD's texts by a text encoder, layers 0, 3 and 6. Needs ``--meld`` and
  ``--text-encoder``, see ``score_data.py``.
* ``synthetic``: mser's synthetic corpus, 960 utterances, with random encoders.

``--base`` takes the features from a cache of ``score_data.py`` instead, and encodes nothing: there
the features of ``meld`` and ``synthetic`` are float16, so their errors are those against float16.

Run it with ``OMP_NUM_THREADS=1 python benchmarks/smaller_caches.py --cache DIR ...``. Every
training is a run folder below ``--runs``: an interrupted script continues.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import torch

from mser.benchmarks.results import (
    Results,
    Rows,
    Table,
    Value,
    machine,
    one_line,
    ratios,
    shuffled_turns,
    versions,
)
from mser.benchmarks.score_data import save, voices
from mser.benchmarks.score_data import table as read_table
from mser.benchmarks.scores import CORPORA, SMALL
from mser.cache import Entry, FeatureCache, UtteranceFeatures, calibration_ids
from mser.cache.formats.arrays import Array
from mser.pipeline.corpora import synthetic
from mser.pipeline.encoders.frame_means import ALL, MEAN, FrameMeans
from mser.pipeline.encoders.random_encoders import save_speech_encoder, save_text_encoder
from mser.pipeline.exchange.importing import ImportSettings, import_features
from mser.pipeline.extract import ExtractSettings, extract
from mser.pipeline.runs.probe import probe
from mser.pipeline.train import TrainSettings, train_head
from mser.pipeline.train.run import Run

SIZES, SCORES, HEADS = "sizes", "scores", "heads"
MELD_LAYERS = "0,3,6"
SHARD = 500  # utterances

SIZE_NOTE = """MB are the files of the shards and the scale. In them, the ids and hashes take some
160 bytes for each utterance in every form, which counts where an utterance has few numbers. The
speed is that of `Entry.read` for
all utterances, 32 at once, in a random order, with the files in the page cache; each round reads
all forms, and a ratio is one within a round (median and quartiles). float16 and float32 are views
of a memory map that are then copied, as in `read.py`; the others are decoded to float32. The error
is the difference from float32, divided by the standard deviation of the dimension over the corpus:
the mean and the largest over all numbers of all layers."""

SCORE_NOTE = """`mser probe` on each form: the pooled score on the test parts for all layers side by
side (or the only layer) with its 95 % interval, in %, and how many points the layer that loses most
has lost against float32. `linear` is the linear head with its own defaults, which keep mean and
standard deviation of the frames; for one mean per utterance the standard deviation is 0, so
`pooling=mean` is set there and in the row that it is to be compared with."""


@dataclass(frozen=True)
class Form:
    """A form in which features are stored."""

    dtype: str
    frames: str = ALL

    def __str__(self) -> str:
        return self.dtype if self.frames == ALL else f"{self.dtype}, frames {self.frames}"


FORMS = (*map(Form, ("float32", "float16", "bfloat16", "int8")), Form("float32", MEAN))
FORMS = (*FORMS, Form("float16", MEAN), Form("int8", MEAN))


def full_precision(cache: Path, given: argparse.Namespace) -> list[str]:
    """Fill the cache with the corpora whose material is given, in float32; return their names."""
    names = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if given.emodb:
            names.append("emodb")
            save(voices(given.emodb), folder / "emodb.npz")
            manifest = given.emodb / "emodb.csv"
            read_table(manifest)
            settings = ImportSettings(
                folder / "emodb.npz", str(cache), "emodb", "egemaps", manifest=manifest,
                dtype="float32",
            )  # fmt: skip
            import_features(settings)
        if given.meld:
            names.append("meld")
            encoders = {"text": str(given.text_encoder)}
            extract(
                ExtractSettings(
                    "meld",
                    given.meld,
                    cache,
                    encoders,
                    layers=MELD_LAYERS,
                    dtype="float32",
                    workers=0,
                )
            )
        names.append("synthetic")
        if not (cache / "synthetic").exists():
            synthetic.make(folder / "synthetic", utterances_per_session=240)
            encoders = {
                "speech": str(save_speech_encoder(folder / "random-wav2vec2")),
                "text": str(save_text_encoder(folder / "random-bert", synthetic.SENTENCE_WORDS)),
            }
            extract(
                ExtractSettings(
                    "synthetic", folder / "synthetic", cache, encoders, dtype="float32", workers=0
                )
            )
    return names


def in_form(
    entry: Entry, source: FeatureCache, target: Path, form: Form, layers: tuple[int, ...]
) -> Entry:
    """Return the entry of a form, made from the exact entry, as an extraction would make it."""
    means = FrameMeans(form.frames)
    identity = {**entry.spec.identity, **means.identity}
    spec = replace(entry.spec, dtype=form.dtype, identity=identity, layers=layers)
    cache = FeatureCache(target)
    writer = cache.writer(spec, {"made from": entry.folder.name})
    stored = writer.committed()
    missing = [id for id in entry.ids if id not in stored]
    if missing:
        chosen = calibration_ids(entry.ids)
        writer.scale(lambda: map(means.of, map(_as_float32, entry.read(chosen, layers))))
        for number, first in enumerate(range(0, len(missing), SHARD)):
            some = missing[first : first + SHARD]
            states = map(means.of, map(_as_float32, entry.read(some, layers)))
            writer.write_shard(
                number,
                [
                    UtteranceFeatures(id, entry.content_hash(id), array)
                    for id, array in zip(some, states, strict=True)
                ],
            )
        manifest = source.read_manifest(spec.dataset, entry.manifest)
        writer.publish(cache.write_manifest(spec.dataset, manifest))
    return Entry(writer.folder)


def _as_float32(states: Array) -> Array:
    return states.astype(np.float32, copy=False)


def size_rows(entries: Mapping[Form, Entry], rounds: int) -> Rows:
    """Return the size, the speed and the error of each form of one entry."""
    whole = [form for form in entries if form.frames == ALL]
    sizes = {form: _bytes(entry) for form, entry in entries.items()}
    seconds: dict[Form, list[float]] = {form: [] for form in whole}
    for number, form in shuffled_turns(whole, rounds):
        order = np.random.default_rng(number).permutation(len(entries[form])).tolist()
        seconds[form].append(_seconds(entries[form], order))
    rows: Rows = {}
    half = Form("float16")
    for form in entries:
        row: dict[str, Value] = {
            "MB": sizes[form] / 1e6,
            "size ÷ float16": sizes[form] / sizes[half],
            "utterances/s": "",
            "speed ÷ float16": "",
        }
        if form in seconds:
            row["utterances/s"] = len(entries[form]) / median(seconds[form])
            row["speed ÷ float16"] = ratios(seconds[half], seconds[form])
        mean, largest = _errors(entries[Form("float32", form.frames)], entries[form])
        rows[str(form)] = {**row, "mean error": mean, "largest error": largest}
    return rows


def _bytes(entry: Entry) -> int:
    scale = entry.folder.size("scale.npz") if entry.scale else 0
    return entry.folder.size("shards") + scale


def _seconds(entry: Entry, order: Sequence[int]) -> float:
    """Read all utterances twice, in batches of 32, and time the second pass."""
    ids = [entry.ids[position] for position in order]
    spent = 0.0
    for _ in range(2):
        begin = time.perf_counter()
        for first in range(0, len(ids), 32):
            for states in entry.read(ids[first : first + 32]):
                if states.base is not None:
                    states.copy()
        spent = time.perf_counter() - begin
    return spent


def _errors(exact: Entry, entry: Entry) -> tuple[float, float]:
    """Return the mean and the largest error, in standard deviations of a dimension."""
    deviation = _deviation(exact)
    total, count, largest = 0.0, 0, 0.0
    for first in range(0, len(exact), SHARD):
        some = exact.ids[first : first + SHARD]
        for right, states in zip(exact.read(some), entry.read(some), strict=True):
            error = np.abs(states.astype(np.float32) - right) / deviation
            total, count = total + float(error.sum(dtype=np.float64)), count + error.size
            largest = max(largest, float(error.max()))
    return total / count, largest


def _deviation(entry: Entry) -> Array:
    """Return the standard deviation of each dimension over all frames, (layers, 1, dim)."""
    sums, squares, frames = 0.0, 0.0, 0
    for id in entry.ids:
        exact = entry[id].astype(np.float64)
        frames += exact.shape[1]
        sums, squares = sums + exact.sum(1), squares + (exact**2).sum(1)
    variance = np.maximum(np.asarray(squares / frames - (sums / frames) ** 2), 1e-12)
    deviation: Array = np.sqrt(variance)[:, None]
    return deviation


def settings_for(name: str, cache: Path, runs: Path, head: str) -> TrainSettings:
    """Return the settings of a training, with the defaults of the head."""
    corpus = CORPORA[name]
    return TrainSettings(
        head=head,
        dataset=name,
        cache=cache,
        encoders=dict.fromkeys(corpus.modalities),
        runs=runs,
        protocol=corpus.protocol,
        monitor=corpus.monitor,
    )


def score_rows(name: str, caches: Mapping[Form, Path], given: argparse.Namespace) -> Rows:
    """Return the scores of the probe and of ``linear`` on each form."""
    metric, runs, rows = CORPORA[name].monitor, given.runs, Rows()
    layers: dict[Form, dict[tuple[str, int | str], float]] = {}
    for form, cache in caches.items():
        settings = settings_for(name, cache, runs, "linear")
        if given.l2:
            settings = settings.changed({"l2": given.l2})
        mean = settings.changed({"head.pooling": "mean"})
        table = probe(mean, runs / f"probe-{name}-{form}", metric)
        layers[form] = {
            (r.modality, r.layer): r.scores[metric]["pooled"] or 0 for r in table.layers
        }
        exact = layers.get(Form("float32", ALL), layers[form])
        lost = max(exact[layer] - score for layer, score in layers[form].items())
        last = table.layers[-1].scores[metric]
        low, high = (100 * (last[key] or 0) for key in ("ci95_low", "ci95_high"))
        row: dict[str, Value] = {
            f"probe, {metric}": f"{100 * (last['pooled'] or 0):.1f} ({low:.1f}–{high:.1f})",
            "most lost by a layer": f"{100 * lost:.1f}",
            "linear, pooling=mean": _score(train_head(mean), metric),
            "linear": "" if form.frames == MEAN else _score(train_head(settings), metric),
        }
        rows[str(form)] = row
        print(name, form, row, flush=True)
    return rows


def head_rows(
    name: str, caches: Mapping[Form, Path], runs: Path, given: argparse.Namespace
) -> Rows:
    """Return the scores of heads that read all frames, on some folds, by form."""
    metric, rows = CORPORA[name].monitor, Rows()
    for form, cache in caches.items():
        row: dict[str, Value] = {}
        for head in given.heads.split(","):
            settings = replace(
                settings_for(name, cache, runs, head),
                folds=tuple(given.folds.split(",")) if given.folds else (),
                seeds=tuple(map(int, given.seeds.split(","))),
            )
            row[f"{head}, {metric}"] = _score(train_head(settings.changed(SMALL[head])), metric)
        rows[str(form)] = row
        print(name, form, row, flush=True)
    return rows


def _score(run: Run, metric: str) -> str:
    aggregate = run.metrics["aggregate"][metric]
    low, high = (100 * bound for bound in aggregate["pooled_ci95"])
    return f"{100 * aggregate['pooled']:.1f} ({low:.1f}–{high:.1f})"


def measure(given: argparse.Namespace) -> Iterator[Table]:
    """Yield the tables."""
    exact = given.base or given.cache / "exact"
    forms = [form for form in FORMS if not given.forms or str(form) in given.forms.split(";")]
    for name in CORPORA if given.base else full_precision(exact, given):
        if given.datasets and name not in given.datasets.split(","):
            continue
        source = FeatureCache(exact)
        caches = {
            form: given.cache / str(form).replace(", ", "-").replace(" ", "-") for form in forms
        }
        made = {
            entry.spec.modality: {
                form: in_form(entry, source, caches[form], form, _chosen(entry, given.layers))
                for form in forms
            }
            for entry in source.entries(name)
        }
        note = "" if name != "synthetic" else "**Synthetic** voices and texts, random encoders. "
        if SIZES in given.sections.split(","):
            for modality, entries in made.items():
                rows = size_rows(entries, given.rounds)
                yield Table(f"{name}, {modality}: sizes", rows, note + one_line(SIZE_NOTE))
        if SCORES in given.sections.split(","):
            rows = score_rows(name, caches, given)
            yield Table(f"{name}: scores in %", rows, note + one_line(SCORE_NOTE))
        if HEADS in given.sections.split(","):
            whole = {form: cache for form, cache in caches.items() if form.frames == ALL}
            rows = head_rows(name, whole, given.runs, given)
            title = f"{name}: heads, folds {given.folds or 'all'}, seeds {given.seeds}"
            yield Table(title, rows, note)


def _chosen(entry: Entry, layers: str) -> tuple[int, ...]:
    """Return the layers of an entry out of those that are asked for; all if it has none."""
    asked = tuple(map(int, layers.split(","))) if layers else ()
    return tuple(layer for layer in entry.layers if layer in asked) or entry.layers


def main() -> None:
    """Make the caches, print the tables and write their JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder for the caches")
    parser.add_argument("--emodb", type=Path, help="folder of emodb.csv and egemaps.npz")
    parser.add_argument("--meld", type=Path, help="folder of MELD's CSV files")
    parser.add_argument("--text-encoder", type=Path, help="folder of a text encoder")
    parser.add_argument("--base", type=Path, help="made by score_data.py, instead of the material")
    parser.add_argument("--layers", default="", help="layers to store, such as 6; default all")
    every = f"{SIZES},{SCORES},{HEADS}"
    parser.add_argument("--sections", default=every, help="default: all three")
    parser.add_argument("--l2", type=float, help="one strength of the linear head, to save time")
    parser.add_argument("--datasets", help="default: all whose material is given")
    parser.add_argument("--forms", help=f"default: {';'.join(map(str, FORMS))}")
    parser.add_argument("--heads", default="hbf", help="of the section heads; default hbf")
    parser.add_argument("--folds", default="", help="of the section heads; default all")
    parser.add_argument("--seeds", default="0", help="of the section heads; default 0")
    parser.add_argument("--rounds", type=int, default=5, help="of the speeds; 2 or more")
    parser.add_argument("--runs", type=Path, default=Path("bench/runs"), help="run folders")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="where the JSON goes")
    given = parser.parse_args()
    before, tables = machine(torch.device("cpu")), []
    for measured in measure(given):
        print(measured.markdown(), flush=True)
        tables.append(measured)
    results = Results(
        "smaller_caches",
        "python benchmarks/smaller_caches.py --cache DIR",
        small=False,
        date=str(datetime.now(UTC).date()),
        machine=before,
        versions=versions(["mser", "torch", "numpy", "zarr", "transformers"]),
        settings={
            "rounds": given.rounds,
            "sections": given.sections,
            "features": "of score_data.py" if given.base else "extracted as float32",
            "layers": given.layers or "all",
            "strengths of linear": given.l2 or "all",
        },
        tables=tables,
    )
    print(f"\n{results.save(given.out)}")


if __name__ == "__main__":
    main()
