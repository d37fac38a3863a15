"""The benchmark of growth compares equal work, and its fits are correct."""

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from pathlib import Path

import numpy as np
import pytest
import torch

from mser.benchmarks.index_opening import open_and_read
from mser.benchmarks.processes import peak_private_memory
from mser.benchmarks.results import RunOptions
from mser.benchmarks.scale import (
    EQUAL_LENGTHS,
    INDEX_NOTE,
    MAX_ERROR,
    growth,
    measure_sizes,
    tables,
)
from mser.benchmarks.scale_tasks import (
    extract_corpus,
    feature_bytes,
    features_checksum,
    largest_error,
    train_epoch,
)
from mser.benchmarks.synthetic_features import make_entry, tiny_shards
from mser.benchmarks.train_data import make_examples
from mser.cache import FeatureCache
from mser.pipeline.corpora import synthetic
from mser.pipeline.encoders.random_encoders import save_speech_encoder, save_text_encoder
from mser.pipeline.extract import ExtractSettings, extract
from mser.pipeline.train import TrainSettings

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


def run_options(rounds: int) -> RunOptions:
    return RunOptions(True, rounds, torch.device("cpu"), None, None, log=lambda line: None)


@LINUX
def test_a_larger_corpus_gives_the_same_features_for_shared_utterances(tmp_path: Path) -> None:
    speech = save_speech_encoder(tmp_path / "speech")
    text = save_text_encoder(tmp_path / "text", synthetic.SENTENCE_WORDS)
    for size in (2, 4):
        synthetic.make(tmp_path / f"{size}", utterances_per_session=size)
    ids = [utterance.id for utterance in synthetic.load(tmp_path / "2").utterances]

    def settings(size: int, cache: str) -> ExtractSettings:
        encoders = {"speech": str(speech), "text": str(text)}
        root = tmp_path / f"{size}"
        return ExtractSettings("synthetic", root, tmp_path / cache, encoders, workers=0)

    reference = tmp_path / "reference.npz"
    small, large = (
        extract_corpus(settings(size, f"cache-{size}"), ids, reference) for size in (2, 4)
    )
    assert (small["utterances"], large["utterances"]) == (8, 16)
    assert small["largest error"] == 0
    assert large["largest error"] < MAX_ERROR
    assert large["MB of features"] > small["MB of features"]
    assert small["MB on disk"] > small["MB of features"]
    assert small["peak private MB"] >= small["private MB before"] > 0

    extract(settings(2, "by-hand"))
    entries = FeatureCache(tmp_path / "by-hand").entries("synthetic")
    assert largest_error(entries, ids, reference) == 0
    with np.load(reference) as states:
        np.savez(tmp_path / "other.npz", **{name: 1.5 * array for name, array in states.items()})
    assert largest_error(entries, ids, tmp_path / "other.npz") == pytest.approx(1 / 3, rel=0.01)
    assert features_checksum(entries, ids) != features_checksum(entries, ids[1:])
    size = sum(entry[id].nbytes for entry in entries for id in entry.ids)
    assert sum(map(feature_bytes, entries)) == size == pytest.approx(1e6 * small["MB of features"])


@LINUX
def test_an_epoch_always_has_the_same_loss(tmp_path: Path) -> None:
    short = EQUAL_LENGTHS._replace(shortest=0.2, longest=0.2)
    examples = make_examples(tmp_path, 6, short, layers=4)
    encoders: dict[str, str | None] = {"speech": None, "text": None}
    head = {"width": 16, "projection": 8, "n_bottlenecks": 2}
    settings = TrainSettings(
        "hbf", "synthetic", "", encoders, device="cpu", batch_size=3, head_options=head
    )
    first, second = (train_epoch(settings, examples) for _ in range(2))
    assert first["loss"] == second["loss"] > 0
    assert first["seconds"] > 0


@LINUX
def test_entries_of_any_size_are_opened_and_read(tmp_path: Path) -> None:
    for count in (10, 1000):
        make_entry(tmp_path / f"{count}", tiny_shards(count), layers=2, dim=8)
        result = open_and_read(tmp_path / f"{count}", 0, 0.0)
        assert result["utterances"] == count
        assert result["later batches of 64, ms"] > 0


@LINUX
def test_a_short_peak_of_memory_is_measured() -> None:
    # Allocated by the kernel: the C library may keep memory that was freed before.
    with (
        peak_private_memory() as memory,
        mmap(-1, 50_000_000, flags=MAP_PRIVATE | MAP_ANONYMOUS) as allocated,
    ):
        allocated.write(bytes(50_000_000))
    assert memory["peak private MB"] - memory["private MB before"] > 40


@pytest.mark.parametrize("power", [0, 0.5, 1, 2])
def test_the_exponent_and_the_slope_of_a_power_are_found(power: float) -> None:
    sizes = [100, 200, 400, 800]
    fit = growth(sizes, [[3 * size**power, 5 * size**power] for size in sizes])
    assert fit["exponent"] == pytest.approx([power] * 3, abs=1e-9)
    if power == 1:
        assert fit["per 1000 more utterances"] == pytest.approx([4000, 3500, 4500])


def test_each_round_measures_each_size_once_and_the_tables_show_the_growth() -> None:
    order: list[tuple[int, int]] = []

    def run(size: int, number: int) -> dict[str, float]:
        order.append((number, size))
        return {"ms": size * (number + 1.0)}

    measured = measure_sizes([1, 10, 100], 4, run, run_options(4), "nothing")
    assert sorted(order) == [(number, size) for number in range(4) for size in (1, 10, 100)]
    assert len({tuple(size for n, size in order if n == number) for number in range(4)}) > 1
    results, fits = tables("ms", measured, INDEX_NOTE, "ms", ["ms"])
    assert results.rows["10 utterances"] == {"utterances": 10, "ms": [25, 17.5, 32.5]}
    assert fits.rows["ms"]["exponent"] == pytest.approx([1, 1, 1])
    assert results.title != fits.title
