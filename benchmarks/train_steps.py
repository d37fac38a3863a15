"""An epoch of training, taken by mser's trainer or by a loop by hand, on batches from anywhere."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from mser.heads import Head
from mser.pipeline.corpora import Utterance
from mser.pipeline.train.batches import BatchSampler
from mser.pipeline.train.checkpoint import TrainingState
from mser.pipeline.train.examples import TrainingExamples
from mser.pipeline.train.features import Batch, FeatureLoader, LayerPositions
from mser.pipeline.train.jobs import build
from mser.pipeline.train.settings import OPTIMIZERS, TrainSettings
from mser.pipeline.train.trainer import Trainer

SEED = 0
Count = TypeVar("Count", int, Tensor)
HOP, WINDOW = 320, 400  # samples at 16 kHz of which wav2vec2-base makes a frame


class Training:
    """A head that was just begun, always with the same weights, and epochs of its training.

    An epoch has the same batches each time, of ``utterances`` or else of all there are.
    """

    def __init__(
        self, settings: TrainSettings, examples: TrainingExamples, device: torch.device
    ) -> None:
        torch.manual_seed(SEED)
        head = build(settings, examples).to(device)
        optimizer = OPTIMIZERS[settings.optimizer](
            head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        scaler = GradScaler(device.type, enabled=False)
        self.state = TrainingState(head, optimizer, scaler, torch.Generator(), device)
        self.settings, self.examples, self.device = settings, examples, device

    @property
    def layers(self) -> LayerPositions:
        """The layers that the head reads."""
        return self.state.head.layers

    def plan(self, utterances: Sequence[Utterance] | None = None) -> BatchSampler:
        among = self.examples.utterances if utterances is None else utterances
        return BatchSampler(among, self.settings.batch_size, self.examples.length)

    def batches(
        self, features: FeatureLoader, utterances: Sequence[Utterance] | None = None
    ) -> list[Batch]:
        """Those of an epoch, all in memory, padded."""
        plan = self.plan(utterances)
        return list(features.batches(plan, plan.order(self.state.order.manual_seed(SEED))))

    def epoch(
        self, features: FeatureLoader, utterances: Sequence[Utterance] | None = None
    ) -> float:
        """An epoch as mser trains it, without what it scores afterwards; return the mean loss."""
        torch.manual_seed(SEED)
        self.state.order.manual_seed(SEED)
        trainer = Trainer(
            lambda: self.state.head, lambda layers: features, self.settings, self.device
        )
        return trainer.epoch(self.state, features, self.plan(utterances), 1)["loss"]

    def epoch_by_hand(self, batches: Sequence[Batch]) -> float:
        """The same steps in a bare loop over batches that are there: the least it can take."""
        torch.manual_seed(SEED)
        head, optimizer = self.state.head.train(), self.state.optimizer
        total, count = torch.zeros((), device=self.device), 0
        for batch in batches:
            for loss in _losses(head, batch):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(batch)
                count += len(batch)
        return float(total) / count


def _losses(head: Head, batch: Batch) -> Iterator[Tensor]:
    """The loss of each turn, each computed when the one before has moved the weights."""
    for turn in head.turns() or (None,):
        more = {} if turn is None else {"turn": turn}
        loss = head(batch.features, batch.lengths, batch.labels, **more).loss
        assert loss is not None
        yield loss


class InTheLoop(FeatureLoader):
    """Batches of features that frozen encoders of base size, with random weights, make each time.

    Waves and token ids lie in memory; nothing is decoded or tokenised. A batch is padded, with its
    masks, and has the lengths that the cached features have. All hidden states come out of the
    encoders, as for any head that reads several layers.
    """

    def __init__(
        self, examples: TrainingExamples, layers: LayerPositions, device: torch.device
    ) -> None:
        # Seconds to import, and of no use to who only trains.
        from transformers import (  # noqa: PLC0415
            BertConfig,
            BertModel,
            Wav2Vec2Config,
            Wav2Vec2Model,
        )

        self.examples, self.device, self.layers = examples, device, layers
        torch.manual_seed(SEED)
        self.speech = Wav2Vec2Model(Wav2Vec2Config()).eval().to(device)
        self.text = BertModel(BertConfig()).eval().to(device)
        longest = max(map(examples.entries["speech"].length, examples.entries["speech"].ids))
        rng = np.random.default_rng(SEED)
        self.wave = torch.from_numpy(rng.standard_normal(_samples(longest), "float32"))
        self.words = torch.from_numpy(rng.integers(1000, 30_000, 512))

    def batches(
        self,
        plan: BatchSampler,
        order: Iterable[Sequence[Utterance]],
        missing: Collection[str] = (),
    ) -> Iterator[Batch]:
        classes = self.examples.corpus.classes
        for part in order:
            frames, tokens = (
                torch.tensor([entry.length(one.id) for one in part])
                for entry in (self.examples.entries["speech"], self.examples.entries["text"])
            )
            features = {
                "speech": self._hidden("speech", self.speech, self.wave, _samples(frames)),
                "text": self._hidden("text", self.text, self.words, tokens),
            }
            labels = torch.tensor([classes.index(str(one.label)) for one in part])
            lengths = {"speech": frames, "text": tokens}
            yield Batch(features, lengths, labels.to(self.device), None)

    def _hidden(self, modality: str, encoder: Any, source: Tensor, lengths: Tensor) -> Tensor:
        """Encode the first ``lengths`` of ``source``; (batch, layers, frames, dim)."""
        longest = int(lengths.max())
        mask = torch.arange(longest) < lengths[:, None]
        inputs, mask = (source[:longest] * mask).to(self.device), mask.long().to(self.device)
        # Nobody asks that encoders in the loop be deterministic, which might cost them time.
        asked = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)
        with torch.no_grad():
            found = encoder(inputs, attention_mask=mask, output_hidden_states=True).hidden_states
            hidden = torch.stack([found[layer] for layer in self.layers[modality]], dim=1)
        torch.use_deterministic_algorithms(asked)
        return hidden


def _samples(frames: Count) -> Count:
    """So many samples of which wav2vec2-base makes so many frames."""
    return HOP * (frames - 1) + WINDOW
