"""Wav2Vec2 and the models of its build: convolutions over the wave, then a transformer.

Wav2Vec2, HuBERT, WavLM, Data2VecAudio, UniSpeech and UniSpeech-SAT.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .encoder import EncoderSettings
from .padding import RowwiseNorm, lengths_known, silence_padding
from .speech import SAMPLE_RATE, SpeechEncoder, Wave


class Wav2Vec2Encoder(SpeechEncoder):
    """A frame every 20 ms, from 25 ms, where the convolutions are those of the base models."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        self.convolutions = list(zip(*self.kernels_and_strides(), strict=True))
        self.hop = int(np.prod([stride for _, stride in self.convolutions]))
        self.field = 1
        for kernel, stride in reversed(self.convolutions):
            self.field = (self.field - 1) * stride + kernel

    def kernels_and_strides(self) -> tuple[Sequence[int], Sequence[int]]:
        """Return the kernels and the strides of the convolutions, the first one first."""
        return self.config.conv_kernel, self.config.conv_stride

    def frames_of(self, samples: int) -> int:
        """Return how many frames so many samples give; 0 if there are too few for one."""
        return _after(self.convolutions, samples)

    def preprocess(self, one: Wave) -> np.ndarray[Any, Any]:
        """Normalise a wave (samples,) where the model was trained so."""
        values = self.extractor(one, sampling_rate=SAMPLE_RATE, return_tensors="np")
        return values["input_values"][0].astype(np.float32)  # type: ignore[no-any-return]

    def load(self) -> torch.nn.Module:
        """Load the model, and keep padding out of its features."""
        model = super().load()
        self.keep_padding_out(model)
        return model

    def keep_padding_out(self, model: nn.Module) -> None:
        """Mask what the model's own attention mask does not."""
        first = partial(_after, self.convolutions[:1])
        for module in list(model.modules()):
            norm = getattr(module, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                module.layer_norm = RowwiseNorm(norm, first)
            # HuBERT's normalisation before the positions' convolution, which sees zeros behind the
            # end where there is no padding; and the first of Data2VecAudio's five convolutions.
            between = type(module).__name__ == "Data2VecAudioPositionalConvLayer"
            if between or isinstance(module, nn.BatchNorm1d):
                silence_padding(module, self.frames_of)

    def hidden_states(
        self, model: torch.nn.Module, values: Tensor, lengths: Sequence[int]
    ) -> Sequence[Tensor]:
        """Run the model on waves (batch, samples)."""
        with lengths_known(lengths, values.shape[-1]):
            return super().hidden_states(model, values, lengths)


def _after(convolutions: Sequence[tuple[int, int]], samples: int) -> int:
    """Return how many frames are left of so many samples after convolutions without padding."""
    for kernel, stride in convolutions:
        samples = (samples - kernel) // stride + 1
    return max(samples, 0)
