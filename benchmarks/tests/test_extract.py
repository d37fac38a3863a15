"""What the benchmark of the extraction compares is the same work, and its errors are errors."""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from mser.benchmarks.exactness import compare, save
from mser.benchmarks.extract_mser import NAME, stored_errors
from mser.benchmarks.forward_passes import Job, Order, Passes
from mser.benchmarks.frame_errors import frame_errors
from mser.benchmarks.persistent_process import Held
from mser.benchmarks.synthetic_clips import make_corpus
from mser.pipeline.extract import ExtractSettings, extract

BOTH = ("speech", "text")
EXACT = 1e-5


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, str]) -> Job:
    """A corpus of 12 s, with what transformers gives for each of its utterances alone."""
    folder = tmp_path_factory.mktemp("job")
    manifest = make_corpus(folder / "corpus", 0.2)
    given = Job(manifest, {one: Path(encoders[one]) for one in BOTH}, "cpu", folder)
    found = Passes(given, "transformers").save_reference()
    assert found["seconds"] > 12
    return given


def largest(errors: dict[str, np.ndarray]) -> float:
    return max(float(one.max()) for one in errors.values())


def test_the_reference_is_a_direct_pass_of_the_normalised_wave(job: Job) -> None:
    model = AutoModel.from_pretrained(job.encoders["speech"]).eval()
    for id, wave in Passes(job, "transformers").inputs["speech"].items():
        normalised = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
        with torch.no_grad():
            states = model(torch.from_numpy(normalised)[None], output_hidden_states=True)
        direct = torch.cat(states.hidden_states).numpy()
        assert frame_errors(direct, np.load(job.right("speech", id))).max() < EXACT


@pytest.mark.parametrize("order", [Order(), Order(3), Order(by_length=True, part=1, parts=2)])
def test_batches_hold_each_utterance_once(order: Order) -> None:
    waves = {str(length): np.zeros(length) for length in (5, 2, 8, 1, 9)}
    parts = [Order(order.size, order.by_length, at, order.parts) for at in range(order.parts)]
    batches = [batch for part in parts for batch in part.batches(waves)]
    assert sorted(id for batch in batches for id in batch) == sorted(waves)
    assert all(len(batch) <= order.size for batch in batches)
    if order.by_length:
        assert order.batches(waves) == [["8"], ["2"]]


def test_passes_one_at_a_time_are_right_and_padded_ones_are_not(job: Job) -> None:
    passes = Passes(job, "transformers")
    shares = [passes.errors(BOTH, Order(by_length=True, part=at, parts=2), 1) for at in range(2)]
    assert max(map(largest, shares)) < EXACT
    padded = passes.errors(BOTH, Order(4), 1)
    for modality in BOTH:
        alone = sum(len(share[modality]) for share in shares)
        assert len(padded[modality]) == alone  # every frame of every layer was compared
    assert padded["speech"].max() > 0.01
    assert padded["text"].max() < EXACT
    assert passes.seconds(BOTH, Order(4), 1) > 0


@pytest.mark.parametrize(("dtype", "most"), [("float32", EXACT), ("float16", 1e-3)])
def test_what_mser_stores_is_right(job: Job, tmp_path: Path, dtype: str, most: float) -> None:
    encoders = {one: str(job.encoders[one]) for one in BOTH}
    settings = ExtractSettings(
        "manifest", None, tmp_path, encoders, job.manifest, NAME, dtype=dtype, workers=0
    )
    extract(settings)
    errors = stored_errors(job, tmp_path, BOTH)
    assert largest(errors) < most
    assert (largest(errors) > 1e-5) == (dtype == "float16")
    assert len(errors["speech"]) == len(
        Passes(job, "transformers").errors(BOTH, Order(), 1)["speech"]
    )


@pytest.mark.parametrize("toolkit", ["s3prl", "SpeechBrain"])
def test_a_toolkit_alone_gives_what_transformers_does(job: Job, toolkit: str) -> None:
    if not find_spec(toolkit.lower()):
        pytest.skip(f"{toolkit} is not installed")
    # Not in this process: SpeechBrain's lazy modules load when Hypothesis looks at them, for long.
    with Held(Passes, job, toolkit) as passes:
        assert largest(passes.begin("errors", ("speech",), Order(), 1).result()) < 1e-4
        assert largest(passes.begin("errors", ("speech",), Order(4), 1).result()) > 0.01


def test_an_error_is_relative_to_the_frame_and_leaves_padding_aside() -> None:
    right = np.full((2, 3, 4), 2.0, np.float32)
    padded = np.concatenate([1.5 * right, np.ones((2, 1, 4), np.float32)], axis=1)
    assert frame_errors(padded, right) == pytest.approx([0.5] * 6)
    with pytest.raises(AssertionError):
        frame_errors(right[:, :2], right)


@pytest.mark.parametrize("kind", ["wav2vec2-group", "bert"])
def test_exactness_finds_mser_exact_and_padding_wrong(kind: str, tmp_path: Path) -> None:
    found = compare(tmp_path, save(kind, tmp_path, small=True), "cpu")
    assert found["mser: largest error"] < EXACT
    assert found["no mask: largest error"] > 0.001


def test_a_held_process_has_its_environment_and_says_what_failed() -> None:
    with Held(os.getenv, "MSER_HELD", environment={"MSER_HELD": "there"}) as held:
        assert held.begin("upper").result() == "THERE"
    assert "MSER_HELD" not in os.environ
    with Held(int, "three") as held, pytest.raises(ValueError, match="three"):
        held.begin("bit_length")
