"""Wav2vec2-like encoders: a wave in, a frame every 20 ms out."""

from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from ...errors import PipelineError
from .encoder import Encoder, EncoderSettings, Window

SAMPLE_RATE = 16_000
MAX_SECONDS = 30.0
OVERLAP_SECONDS = 2.0

Wave = np.ndarray[Any, np.dtype[np.float32]]


class SpeechEncoder(Encoder[Wave]):
    """An encoder of mono waves at 16 kHz.

    An utterance of up to ``MAX_SECONDS`` is encoded whole. A longer one goes through in windows
    that overlap by ``OVERLAP_SECONDS`` at least and are cut in the middle of the overlap, so that
    it has just as many frames as it would have whole, and no memory grows with its square.
    """

    modality = "speech"

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        self.convolutions = list(zip(self.config.conv_kernel, self.config.conv_stride, strict=True))
        self.hop = int(np.prod(self.config.conv_stride))
        if self.extractor.sampling_rate != SAMPLE_RATE:
            raise PipelineError(
                f"'{self.name}' wants audio at {self.extractor.sampling_rate} Hz: "
                f"choose an encoder that takes {SAMPLE_RATE} Hz"
            )

    @cached_property
    def extractor(self) -> Any:
        """The model's own preprocessing: it normalises the wave where the model was trained so."""
        from transformers import AutoFeatureExtractor  # noqa: PLC0415

        return AutoFeatureExtractor.from_pretrained(self.folder, local_files_only=True)

    def input_identity(self) -> dict[str, Any]:
        """Return sample rate, downmix, resampling, normalisation and windows."""
        return {
            "sample_rate": SAMPLE_RATE,
            "downmix": "libswresample to mono, weights summing to one",
            "resampler": "torchaudio sinc_interp_hann, width 6, rolloff 0.99",
            "normalised": bool(self.extractor.do_normalize),
            "window_seconds": [MAX_SECONDS, OVERLAP_SECONDS],
        }

    def frames(self, one: Wave) -> int:
        """Return how many frames a wave (samples,) gives; 0 if it is too short for one."""
        return self.frames_of(len(one))

    def frames_of(self, samples: int) -> int:
        """Return how many frames so many samples give; 0 if there are too few for one."""
        for kernel, stride in self.convolutions:
            samples = (samples - kernel) // stride + 1
        return max(samples, 0)

    def windows_of(self, samples: int) -> int:
        """Return in how many windows a wave of so many samples is encoded."""
        return len(_starts(self.frames_of(samples), *self._window_frames()))

    def prepare(self, one: Wave) -> list[Window]:
        """Normalise a wave (samples,) float32 as the model wants it, and cut it if it is long."""
        values = self.extractor(one, sampling_rate=SAMPLE_RATE, return_tensors="np")
        wave = values["input_values"][0].astype(np.float32)
        frames = self.frames(wave)
        size, overlap = self._window_frames()
        starts = _starts(frames, size, overlap)
        if len(starts) == 1:
            return [Window(wave, frames, slice(0, frames))]
        seams = [
            0,
            *((left + size + right) // 2 for left, right in pairwise(starts)),
            frames,
        ]
        field = self._receptive_field()
        return [
            Window(
                wave[start * self.hop : (start + size - 1) * self.hop + field],
                size,
                slice(seams[number] - start, seams[number + 1] - start),
            )
            for number, start in enumerate(starts)
        ]

    def _window_frames(self) -> tuple[int, int]:
        return (
            self.frames_of(int(MAX_SECONDS * SAMPLE_RATE)),
            int(OVERLAP_SECONDS * SAMPLE_RATE) // self.hop,
        )

    def _receptive_field(self) -> int:
        """Return how many samples one frame is made of."""
        field = 1
        for kernel, stride in reversed(self.convolutions):
            field = (field - 1) * stride + kernel
        return field


def _starts(frames: int, size: int, overlap: int) -> list[int]:
    """Return the first frame of each window of ``size`` frames; the last ends with the wave."""
    if frames <= size:
        return [0]
    return [*range(0, frames - size, size - overlap), frames - size]
