"""What the benchmark of growth compares is the same work, and its slopes are what they say."""

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from pathlib import Path

import numpy as np
import pytest
import torch

from mser.benchmarks.index_opening import opened
from mser.benchmarks.processes import most_private
from mser.benchmarks.results import Asked
from mser.benchmarks.scale import ALIKE, INDEX_NOTE, ROUNDING, in_turn, slope, tables
from mser.benchmarks.scale_tasks import (
    extract_more,
    features_of,
    largest_error,
    payload,
    train_more,
)
from mser.benchmarks.synthetic_features import make_entry, tiny_shards
from mser.benchmarks.train_data import make_examples
from mser.cache import FeatureCache
from mser.pipeline.corpora import synthetic
from mser.pipeline.encoders.random_encoders import save_speech_encoder, save_text_encoder
from mser.pipeline.extract import ExtractSettings, extract
from mser.pipeline.train import TrainSettings

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


def asked(rounds: int) -> Asked:
    return Asked(True, rounds, torch.device("cpu"), None, None, say=lambda line: None)


@LINUX
def test_a_larger_corpus_gives_the_same_features_of_what_both_have(tmp_path: Path) -> None:
    speech = save_speech_encoder(tmp_path / "speech")
    text = save_text_encoder(tmp_path / "text", synthetic.SENTENCE_WORDS)
    for size in (2, 4):
        synthetic.make(tmp_path / f"{size}", utterances_per_session=size)
    same = [one.id for one in synthetic.load(tmp_path / "2").utterances]

    def settings(size: int, cache: str) -> ExtractSettings:
        encoders = {"speech": str(speech), "text": str(text)}
        root = tmp_path / f"{size}"
        return ExtractSettings("synthetic", root, tmp_path / cache, encoders, workers=0)

    known = tmp_path / "known.npz"
    small, large = (extract_more(settings(size, f"cache-{size}"), same, known) for size in (2, 4))
    assert (small["utterances"], large["utterances"]) == (8, 16)
    assert small["largest error"] == 0
    assert large["largest error"] < ROUNDING
    assert large["MB of features"] > small["MB of features"]
    assert small["MB on disk"] > small["MB of features"]
    assert small["peak private MB"] >= small["private MB before"] > 0

    extract(settings(2, "by-hand"))
    entries = FeatureCache(tmp_path / "by-hand").entries("synthetic")
    assert largest_error(entries, same, known) == 0
    with np.load(known) as right:
        np.savez(tmp_path / "other.npz", **{name: 1.5 * states for name, states in right.items()})
    assert largest_error(entries, same, tmp_path / "other.npz") == pytest.approx(1 / 3, rel=0.01)
    assert features_of(entries, same) != features_of(entries, same[1:])
    numbers = sum(entry[id].nbytes for entry in entries for id in entry.ids)
    assert sum(map(payload, entries)) == numbers == pytest.approx(1e6 * small["MB of features"])


@LINUX
def test_an_epoch_has_the_same_loss_each_time(tmp_path: Path) -> None:
    short = ALIKE._replace(shortest=0.2, longest=0.2)
    examples = make_examples(tmp_path, 6, short, layers=4)
    encoders: dict[str, str | None] = {"speech": None, "text": None}
    head = {"width": 16, "projection": 8, "n_bottlenecks": 2}
    settings = TrainSettings(
        "hbf", "synthetic", "", encoders, device="cpu", batch_size=3, head_options=head
    )
    one, other = (train_more(settings, examples) for _ in range(2))
    assert one["loss"] == other["loss"] > 0
    assert one["s"] > 0


@LINUX
def test_an_entry_is_opened_and_read_whatever_its_size(tmp_path: Path) -> None:
    for count in (10, 1000):
        make_entry(tmp_path / f"{count}", tiny_shards(count), layers=2, dim=8)
        found = opened(tmp_path / f"{count}", 0, 0.0)
        assert found["utterances"] == count
        assert found["later batches of 64, ms"] > 0


@LINUX
def test_a_peak_that_has_gone_again_is_seen() -> None:
    # Asked of the kernel itself: the C library may have kept what others gave back.
    with (
        most_private() as found,
        mmap(-1, 50_000_000, flags=MAP_PRIVATE | MAP_ANONYMOUS) as taken,
    ):
        taken.write(bytes(50_000_000))
    assert found["peak private MB"] - found["private MB before"] > 40


@pytest.mark.parametrize("power", [0, 0.5, 1, 2])
def test_a_slope_is_the_exponent_of_the_growth(power: float) -> None:
    sizes = [100, 200, 400, 800]
    found = slope(sizes, [[3 * size**power, 5 * size**power] for size in sizes])
    assert found["exponent"] == pytest.approx([power] * 3, abs=1e-9)
    if power == 1:
        assert found["for each 1000 utterances more"] == pytest.approx([4000, 3500, 4500])


def test_each_round_takes_each_size_once_and_the_tables_say_how_it_grows() -> None:
    order: list[tuple[int, int]] = []

    def run(size: int, number: int) -> dict[str, float]:
        order.append((number, size))
        return {"ms": size * (number + 1.0)}

    found = in_turn([1, 10, 100], 4, run, asked(4), "nothing")
    assert sorted(order) == [(number, size) for number in range(4) for size in (1, 10, 100)]
    assert len({tuple(size for at, size in order if at == number) for number in range(4)}) > 1
    measured, grows = tables("ms", found, INDEX_NOTE, "ms", ["ms"])
    assert measured.rows["10 utterances"] == {"utterances": 10, "ms": [25, 17.5, 32.5]}
    assert grows.rows["ms"]["exponent"] == pytest.approx([1, 1, 1])
    assert measured.title != grows.title
