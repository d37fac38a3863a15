"""What the benchmark of the training compares is the same training."""

from dataclasses import replace

import pytest
import torch

from mser.benchmarks.train import ABLATION, EPOCH, MODALITIES, _table2
from mser.benchmarks.train_data import MELD, make_examples
from mser.benchmarks.train_steps import InTheLoop, Training
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
    asked = TrainSettings(head, "synthetic", "", MODALITIES, device="cpu", batch_size=3)
    return replace(asked, head_options=options)


@pytest.mark.parametrize(
    "asked",
    [settings("linear"), settings("hbf", width=16, projection=8, n_bottlenecks=2)],
    ids=lambda one: one.head,
)
def test_the_bare_loop_does_the_steps_of_the_trainer(
    few: TrainingExamples, asked: TrainSettings
) -> None:
    ours, by_hand = (Training(asked, few, CPU) for _ in range(2))
    before = torch.cat([one.detach().flatten() for one in ours.state.head.parameters()])
    features = FeatureLoader(few, ours.layers, CPU, "stream")
    assert ours.epoch(features) == pytest.approx(by_hand.epoch_by_hand(by_hand.batches(features)))
    after, other = (
        torch.cat([one.detach().flatten() for one in training.state.head.parameters()])
        for training in (ours, by_hand)
    )
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, other)


def test_encoders_in_the_loop_give_batches_of_the_same_form(few: TrainingExamples) -> None:
    training = Training(settings("hbf", width=16), few, CPU)
    cached = training.batches(
        FeatureLoader(few, training.layers, CPU, "stream"), few.utterances[:2]
    )
    looped = training.batches(InTheLoop(few, training.layers, CPU), few.utterances[:2])
    for one, other in zip(cached, looped, strict=True):
        assert torch.equal(one.labels, other.labels)
        for modality in MODALITIES:
            assert torch.equal(one.lengths[modality], other.lengths[modality])
            assert one.features[modality].shape == other.features[modality].shape
            assert other.features[modality].std() > 0.1


@pytest.mark.parametrize("measured", [1, 5])
def test_table_ii_takes_all_systems_folds_and_epochs(measured: int) -> None:
    names = [system["name"] for system in read(ABLATION, "ablations")["systems"]]
    rows = {f"{name}, batches of 4": {EPOCH: [60.0, 50.0, 70.0]} for name in names[:measured]}
    rows["S0 all, batches of 64"] = {EPOCH: [6.0, 5.0, 7.0]}
    hours = [row["hours of training, estimated"] for row in _table2(rows).values()]
    most = preset("mgcma-iemocap")["epochs"]
    assert hours == pytest.approx([5 * 5 * 10 * 0.68, 5 * 5 * most * 0.68])
