"""w2v-BERT 2.0: a log-mel filter bank, two steps of 10 ms in a frame, then a conformer.

The filter bank is normalised over the whole utterance, for each band, and then cut into windows if
the utterance is long. Nothing after it mixes an utterance with its padding: the convolutions of
the conformer look only back, the attention masks the padding, and its positions are relative. A
last step that has no partner is not a frame, as the feature extractor masks it too.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .encoder import EncoderSettings, padding_mask
from .speech import SAMPLE_RATE, SpeechEncoder, Wave

_STEP, _LENGTH = 160, 400  # samples of a step of the filter bank, and of its window


class Wav2Vec2BertEncoder(SpeechEncoder):
    """w2v-BERT 2.0, a frame of 35 ms every 20 ms."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        self.stride = int(self.extractor.stride)
        self.hop = self.stride * _STEP
        self.receptive_field = (self.stride - 1) * _STEP + _LENGTH

    def frames_of(self, samples: int) -> int:
        """Return the number of frames for a number of samples; 0 if these are too few."""
        return max(0, (samples - _LENGTH) // _STEP + 1) // self.stride

    def preprocess(self, wave: Wave) -> np.ndarray[Any, Any]:
        """Return the normalised filter bank (stride · bands, frames) of a wave (samples,)."""
        values = self.extractor(wave, sampling_rate=SAMPLE_RATE, return_tensors="np")
        features: np.ndarray[Any, Any] = values["input_features"][0, : self.frames_of(len(wave))]
        return features.T.astype(np.float32)

    def part(self, values: np.ndarray[Any, Any], start: int, size: int) -> np.ndarray[Any, Any]:
        """Return ``size`` frames of the filter bank: the model makes a frame of each."""
        return values[:, start : start + size]

    def hidden_states(
        self, model: torch.nn.Module, values: Tensor, lengths: Sequence[int]
    ) -> Sequence[Tensor]:
        """Run the model on filter banks (batch, stride · bands, frames)."""
        mask = padding_mask(lengths, values)
        result = model(values.transpose(1, 2), attention_mask=mask, output_hidden_states=True)
        return result.hidden_states  # type: ignore[no-any-return]
