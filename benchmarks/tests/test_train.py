"""The training benchmark compares equal trainings."""

from dataclasses import replace

import pytest
import torch

from mser.benchmarks.train import ABLATION, EPOCH, MODALITIES, estimate_table2
from mser.benchmarks.train_data import MELD, make_examples
from mser.benchmarks.train_steps import EncodersInLoop, Training
from mser.pipeline.train import TrainSettings
from mser.pipeline.train.examples import TrainingExamples
from mser.pipeline.train.features import FeatureLoader
from mser.pipeline.train.presets import preset, read

CPU = torch.device("cpu")
SHORT = MELD._replace(longest=1.0)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> TrainingExamples:
    return make_examples(tmp_path_factory.mktemp("few"), 6, SHORT, layers=13)


def settings(head: str, **options: object) -> TrainSettings:
    base = TrainSettings(head, "synthetic", "", MODALITIES, device="cpu", batch_size=3)
    return replace(base, head_options=options)


@pytest.mark.parametrize(
    "head_settings",
    [settings("linear"), settings("hbf", width=16, projection=8, n_bottlenecks=2)],
    ids=lambda head_settings: head_settings.head,
)
def test_the_bare_loop_does_the_steps_of_the_trainer(
    few: TrainingExamples, head_settings: TrainSettings
) -> None:
    ours, bare = (Training(head_settings, few, CPU) for _ in range(2))
    before = torch.cat([weights.detach().flatten() for weights in ours.state.head.parameters()])
    features = FeatureLoader(few, ours.layers, CPU, "stream")
    own = features
    if ours.state.head.reads_pooled:
        own = FeatureLoader(few, ours.layers, CPU, pooled=ours.state.head.widths)
    assert ours.epoch(own) == pytest.approx(bare.bare_epoch(bare.batches(features)))
    trained, trained_bare = (
        torch.cat([weights.detach().flatten() for weights in training.state.head.parameters()])
        for training in (ours, bare)
    )
    assert not torch.allclose(before, trained)
    torch.testing.assert_close(trained, trained_bare)


def test_encoders_in_the_loop_make_batches_of_the_same_shape(few: TrainingExamples) -> None:
    training = Training(settings("hbf", width=16), few, CPU)
    cached = training.batches(
        FeatureLoader(few, training.layers, CPU, "stream"), few.utterances[:2]
    )
    looped = training.batches(EncodersInLoop(few, training.layers, CPU), few.utterances[:2])
    for (from_cache,), (from_encoders,) in zip(cached, looped, strict=True):
        assert torch.equal(from_cache.labels, from_encoders.labels)
        for modality in MODALITIES:
            assert torch.equal(from_cache.lengths[modality], from_encoders.lengths[modality])
            assert from_cache.features[modality].shape == from_encoders.features[modality].shape
            assert from_encoders.features[modality].std() > 0.1


@pytest.mark.parametrize("measured", [1, 5])
def test_the_estimate_of_table_ii_counts_all_systems_folds_and_epochs(measured: int) -> None:
    names = [system["name"] for system in read(ABLATION, "ablations")["systems"]]
    rows = {f"{name}, batches of 4": {EPOCH: [60.0, 50.0, 70.0]} for name in names[:measured]}
    rows["S0 all, batches of 64"] = {EPOCH: [6.0, 5.0, 7.0]}
    hours = [row["hours of training, estimated"] for row in estimate_table2(rows).values()]
    max_epochs = preset("mgcma-iemocap")["epochs"]
    assert hours == pytest.approx([5 * 5 * 10 * 0.68, 5 * 5 * max_epochs * 0.68])
