"""The encoder of Whisper: thirty seconds of log-mel spectrogram in, a frame every 20 ms out.

The input is always thirty seconds long, filled up with silence, as in the training of the model. So
a forward pass takes the same time for a word as for thirty seconds, and utterances can share a pass
without any change. Only the frames of the utterance are kept.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .encoder import EncoderSettings
from .speech import SAMPLE_RATE, SpeechEncoder, Wave
from .windows import Window


class WhisperEncoder(SpeechEncoder):
    """The encoder half of a Whisper model.

    Layer 0 is the sum of the output of the convolutions and the positions; the last layer is
    normalised.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        self.hop = self.receptive_field = 2 * int(self.extractor.hop_length)
        self.positions = int(self.config.max_source_positions)
        self.max_seconds = min(settings.max_seconds, self.positions * self.hop / SAMPLE_RATE)

    def frames_of(self, samples: int) -> int:
        """Return the number of frames for a number of samples; an incomplete frame counts."""
        return -(-samples // self.hop)

    def preprocess(self, wave: Wave) -> np.ndarray[Any, Any]:
        """Return a wave (samples,) unchanged: ``prepare`` makes a spectrogram of each window."""
        return wave

    def prepare(self, utterance: Wave) -> list[Window]:
        """Cut a wave (samples,) if it is long; return a spectrogram (mels, steps) per window."""
        return [
            Window(self._spectrogram(window.values), self.positions, window.kept)
            for window in super().prepare(utterance)
        ]

    def load(self) -> torch.nn.Module:
        """Load the model without its decoder."""
        return super().load().get_encoder()  # type: ignore[no-any-return, operator]

    def hidden_states(
        self, model: torch.nn.Module, values: Tensor, lengths: Sequence[int]
    ) -> Sequence[Tensor]:
        """Run the model on spectrograms (batch, mels, steps) of thirty seconds."""
        return model(values, output_hidden_states=True).hidden_states  # type: ignore[no-any-return]

    def _spectrogram(self, wave: Wave) -> np.ndarray[Any, Any]:
        features = self.extractor(wave, sampling_rate=SAMPLE_RATE, return_tensors="np")
        return features["input_features"][0].astype(np.float32)  # type: ignore[no-any-return]
