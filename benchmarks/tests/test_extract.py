"""The extraction benchmark compares equal work, and measures errors correctly."""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from mser.benchmarks.exactness import compare, save
from mser.benchmarks.extract_mser import NAME, stored_errors
from mser.benchmarks.forward_passes import Batching, ForwardPasses, Job
from mser.benchmarks.frame_errors import frame_errors
from mser.benchmarks.persistent_process import PersistentProcess
from mser.benchmarks.synthetic_clips import make_corpus
from mser.pipeline.extract import ExtractSettings, extract

BOTH = ("speech", "text")
MAX_ERROR = 1e-5


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, str]) -> Job:
    """A corpus of 12 s, with the reference of each of its utterances."""
    folder = tmp_path_factory.mktemp("job")
    manifest = make_corpus(folder / "corpus", 0.2)
    job = Job(manifest, {name: Path(encoders[name]) for name in BOTH}, "cpu", folder)
    size = ForwardPasses(job, "transformers").save_reference()
    assert size["seconds"] > 12
    return job


def largest(errors: dict[str, np.ndarray]) -> float:
    return max(float(each.max()) for each in errors.values())


def test_the_reference_is_a_direct_pass_of_the_normalised_wave(job: Job) -> None:
    model = AutoModel.from_pretrained(job.encoders["speech"]).eval()
    for id, wave in ForwardPasses(job, "transformers").inputs["speech"].items():
        normalised = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
        with torch.no_grad():
            states = model(torch.from_numpy(normalised)[None], output_hidden_states=True)
        direct = torch.cat(states.hidden_states).numpy()
        assert frame_errors(direct, np.load(job.reference("speech", id))).max() < MAX_ERROR


@pytest.mark.parametrize(
    "batching", [Batching(), Batching(3), Batching(by_length=True, part=1, parts=2)]
)
def test_batches_hold_each_utterance_once(batching: Batching) -> None:
    waves = {str(length): np.zeros(length) for length in (5, 2, 8, 1, 9)}
    parts = [
        Batching(batching.size, batching.by_length, part, batching.parts)
        for part in range(batching.parts)
    ]
    batches = [batch for part in parts for batch in part.batches(waves)]
    assert sorted(id for batch in batches for id in batch) == sorted(waves)
    assert all(len(batch) <= batching.size for batch in batches)
    if batching.by_length:
        assert batching.batches(waves) == [["8"], ["2"]]


def test_single_passes_are_exact_and_padded_passes_are_not(job: Job) -> None:
    passes = ForwardPasses(job, "transformers")
    halves = [
        passes.errors(BOTH, Batching(by_length=True, part=part, parts=2), 1) for part in range(2)
    ]
    assert max(map(largest, halves)) < MAX_ERROR
    padded = passes.errors(BOTH, Batching(4), 1)
    for modality in BOTH:
        alone = sum(len(half[modality]) for half in halves)
        assert len(padded[modality]) == alone  # every frame of every layer was compared
    assert padded["speech"].max() > 0.01
    assert padded["text"].max() < MAX_ERROR
    assert passes.seconds(BOTH, Batching(4), 1) > 0


@pytest.mark.parametrize(("dtype", "limit"), [("float32", MAX_ERROR), ("float16", 1e-3)])
def test_features_that_mser_stores_are_exact(
    job: Job, tmp_path: Path, dtype: str, limit: float
) -> None:
    encoders = {name: str(job.encoders[name]) for name in BOTH}
    settings = ExtractSettings(
        "manifest", None, tmp_path, encoders, job.manifest, NAME, dtype=dtype, workers=0
    )
    extract(settings)
    errors = stored_errors(job, tmp_path, BOTH)
    assert largest(errors) < limit
    assert (largest(errors) > 1e-5) == (dtype == "float16")
    alone = ForwardPasses(job, "transformers").errors(BOTH, Batching(), 1)
    assert len(errors["speech"]) == len(alone["speech"])


@pytest.mark.parametrize("toolkit", ["s3prl", "SpeechBrain"])
def test_a_toolkit_agrees_with_transformers_on_single_utterances(job: Job, toolkit: str) -> None:
    if not find_spec(toolkit.lower()):
        pytest.skip(f"{toolkit} is not installed")
    # In another process: SpeechBrain's lazy modules load for long when Hypothesis inspects them.
    with PersistentProcess(ForwardPasses, job, toolkit) as passes:
        assert largest(passes.call("errors", ("speech",), Batching(), 1).result()) < 1e-4
        assert largest(passes.call("errors", ("speech",), Batching(4), 1).result()) > 0.01


def test_an_error_is_relative_to_the_frame_and_ignores_padding() -> None:
    reference = np.full((2, 3, 4), 2.0, np.float32)
    padded = np.concatenate([1.5 * reference, np.ones((2, 1, 4), np.float32)], axis=1)
    assert frame_errors(padded, reference) == pytest.approx([0.5] * 6)
    with pytest.raises(AssertionError):
        frame_errors(reference[:, :2], reference)


@pytest.mark.parametrize("kind", ["wav2vec2-group", "bert"])
def test_mser_is_exact_and_padding_is_not(kind: str, tmp_path: Path) -> None:
    errors = compare(tmp_path, save(kind, tmp_path, small=True), "cpu")
    assert errors["mser: largest error"] < MAX_ERROR
    assert errors["no mask: largest error"] > 0.001


def test_a_persistent_process_has_its_environment_and_raises_errors_of_make() -> None:
    with PersistentProcess(os.getenv, "MSER_TEST", environment={"MSER_TEST": "set"}) as process:
        assert process.call("upper").result() == "SET"
    assert "MSER_TEST" not in os.environ
    with PersistentProcess(int, "three") as process, pytest.raises(ValueError, match="three"):
        process.call("bit_length")
