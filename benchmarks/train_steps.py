"""An epoch of training by mser's trainer or by a bare loop, with batches from any source."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

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
HOP, WINDOW = 320, 400  # samples at 16 kHz: the step and the length of wav2vec2-base's frames


class Training:
    """A new head, always with the same initial weights, and its training.

    Every epoch has the same batches, of the given ``utterances`` or of all.
    """

    def __init__(
        self, settings: TrainSettings, examples: TrainingExamples, device: torch.device
    ) -> None:
        torch.manual_seed(SEED)
        head = build(settings, examples).to(device)
        optimizer = OPTIMIZERS["adamw"](
            head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        scaler = GradScaler(device.type, enabled=False)
        self.state = TrainingState(head, optimizer, scaler, torch.Generator(), device)
        self.settings, self.examples, self.device = settings, examples, device

    @property
    def layers(self) -> LayerPositions:
        """The layers that the head reads."""
        return self.state.head.layers

    def sampler(self, utterances: Sequence[Utterance] | None = None) -> BatchSampler:
        """Return the sampler of the batches."""
        sampled = self.examples.utterances if utterances is None else utterances
        return BatchSampler(sampled, self.settings.batch_size, self.examples.length)

    def batches(
        self, features: FeatureLoader, utterances: Sequence[Utterance] | None = None
    ) -> list[list[Batch]]:
        """Return the padded batches of each step of an epoch, in memory."""
        sampler = self.sampler(utterances)
        steps = sampler.steps(self.state.order.manual_seed(SEED))
        loaded = features.batches(sampler, [batch for step in steps for batch in step])
        return [list(islice(loaded, len(step))) for step in steps]

    def epoch(
        self, features: FeatureLoader, utterances: Sequence[Utterance] | None = None
    ) -> float:
        """Train an epoch with mser's trainer, without scoring; return the mean loss."""
        torch.manual_seed(SEED)
        self.state.order.manual_seed(SEED)
        trainer = Trainer(
            lambda: self.state.head, lambda head: features, self.settings, self.device
        )
        return trainer.epoch(self.state, features, self.sampler(utterances), 1)["loss"]

    def bare_epoch(self, steps: Sequence[Sequence[Batch]]) -> float:
        """Train the same steps in a bare loop over batches in memory: the shortest possible time.

        Returns the mean loss.
        """
        torch.manual_seed(SEED)
        head, optimizer = self.state.head.train(), self.state.optimizer
        total, count = torch.zeros((), device=self.device), 0
        for batches in steps:
            size = sum(map(len, batches))
            for turn in head.turns() or (None,):
                keywords = {} if turn is None else {"turn": turn}
                optimizer.zero_grad()
                for batch in batches:
                    loss = head(batch.features, batch.lengths, batch.labels, **keywords).loss
                    assert loss is not None
                    (loss * (len(batch) / size)).backward()
                    total += loss.detach() * len(batch)
                    count += len(batch)
                optimizer.step()
        return float(total) / count


class EncodersInLoop(FeatureLoader):
    """Batches whose features are computed anew by frozen encoders of base size, random weights.

    Waves and token ids are in memory; nothing is decoded or tokenised. A batch is padded, with its
    masks, and has the lengths of the cached features. The encoders return all hidden states, as
    for any head that reads several layers.
    """

    def __init__(
        self, examples: TrainingExamples, layers: LayerPositions, device: torch.device
    ) -> None:
        # The import takes seconds, and the other trainings do not need it.
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
        self.tokens = torch.from_numpy(rng.integers(1000, 30_000, 512))

    def batches(
        self,
        plan: BatchSampler,
        order: Iterable[Sequence[Utterance]],
        missing: Collection[str] = (),
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        classes = self.examples.corpus.classes
        for utterances in order:
            frames, tokens = (
                torch.tensor([entry.length(utterance.id) for utterance in utterances])
                for entry in (self.examples.entries["speech"], self.examples.entries["text"])
            )
            features = {
                "speech": self._encode("speech", self.speech, self.wave, _samples(frames)),
                "text": self._encode("text", self.text, self.tokens, tokens),
            }
            labels = torch.tensor([classes.index(str(utterance.label)) for utterance in utterances])
            lengths = {"speech": frames, "text": tokens}
            yield Batch(features, lengths, labels.to(self.device), None)

    def _encode(self, modality: str, encoder: Any, source: Tensor, lengths: Tensor) -> Tensor:
        """Encode the first ``lengths`` of ``source``; return (batch, layers, frames, dim)."""
        longest = int(lengths.max())
        mask = torch.arange(longest) < lengths[:, None]
        inputs, mask = (source[:longest] * mask).to(self.device), mask.long().to(self.device)
        # Encoders in the loop need not be deterministic, which could make them slower.
        deterministic = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)
        with torch.no_grad():
            states = encoder(inputs, attention_mask=mask, output_hidden_states=True).hidden_states
            hidden = torch.stack([states[layer] for layer in self.layers[modality]], dim=1)
        torch.use_deterministic_algorithms(deterministic)
        return hidden


def _samples(frames: Count) -> Count:
    """Return the number of samples from which wav2vec2-base makes this number of frames."""
    return HOP * (frames - 1) + WINDOW
