"""Wav2Vec2 and models of the same architecture: convolutions over the wave, then a transformer.

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
    """With the convolutions of the base models, a frame of 25 ms every 20 ms."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        self.convolutions = list(zip(*self.kernels_and_strides(), strict=True))
        self.hop = int(np.prod([stride for _, stride in self.convolutions]))
        self.receptive_field = 1
        for kernel, stride in reversed(self.convolutions):
            self.receptive_field = (self.receptive_field - 1) * stride + kernel

    def kernels_and_strides(self) -> tuple[Sequence[int], Sequence[int]]:
        """Return the kernels and the strides of the convolutions, in their order."""
        return self.config.conv_kernel, self.config.conv_stride

    def frames_of(self, samples: int) -> int:
        """Return the number of frames for a number of samples; 0 if these are too few."""
        return _after(self.convolutions, samples)

    def preprocess(self, wave: Wave) -> np.ndarray[Any, Any]:
        """Normalise a wave (samples,), if the model was trained on normalised waves."""
        values = self.extractor(wave, sampling_rate=SAMPLE_RATE, return_tensors="np")
        return values["input_values"][0].astype(np.float32)  # type: ignore[no-any-return]

    def load(self) -> torch.nn.Module:
        """Load the model, and keep padding out of its features."""
        model = super().load()
        self.keep_padding_out(model)
        return model

    def keep_padding_out(self, model: nn.Module) -> None:
        """Keep padding out where the attention mask of the model does not."""
        first = partial(_after, self.convolutions[:1])
        for module in list(model.modules()):
            norm = getattr(module, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                module.layer_norm = RowwiseNorm(norm, first)
            # The normalisation of HuBERT before its positional convolution, and the convolutions of
            # Data2VecAudio: the next convolution must see zeros after the end of an utterance.
            positional = type(module).__name__ == "Data2VecAudioPositionalConvLayer"
            if positional or isinstance(module, nn.BatchNorm1d):
                silence_padding(module, self.frames_of)

    def hidden_states(
        self, model: torch.nn.Module, values: Tensor, lengths: Sequence[int]
    ) -> Sequence[Tensor]:
        """Run the model on waves (batch, samples)."""
        with lengths_known(lengths, values.shape[-1]):
            return super().hidden_states(model, values, lengths)


def _after(convolutions: Sequence[tuple[int, int]], samples: int) -> int:
    """Return the number of frames that convolutions without padding make of ``samples``."""
    for kernel, stride in convolutions:
        samples = (samples - kernel) // stride + 1
    return max(samples, 0)
