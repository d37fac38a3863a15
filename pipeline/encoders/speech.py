"""The base class of speech encoders: a wave at 16 kHz in, frames out, long audio in windows."""

import math
from abc import abstractmethod
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import PipelineError, UsageError
from .encoder import Encoder, EncoderSettings
from .windows import Window, cut

SAMPLE_RATE = 16_000
OVERLAP_SECONDS = 2.0
AUDIO_IDENTITY = {
    "sample_rate": SAMPLE_RATE,
    "downmix": "libswresample to mono, weights summing to one; mean of unknown channels",
    "resampler": "torchaudio sinc_interp_hann, width 6, rolloff 0.99; scipy at odd rates",
}
"""How a wave is made of a clip; part of the identity of all speech features."""

Wave = np.ndarray[Any, np.dtype[np.float32]]


def checked_wave(wave: Any) -> Wave:
    """Return a wave (samples,) as float32.

    Raises:
        UsageError: it is not one-dimensional, or not floating.
    """
    array = np.asarray(wave)
    if array.ndim != 1:
        advice = "give a list of waves" if array.ndim == 0 else "give one channel (samples,)"
        if array.ndim == 2 and 1 in array.shape:
            advice = "give wave[0]" if array.shape[0] == 1 else "give wave[:, 0]"
        raise UsageError(f"a wave has the shape {array.shape} and not (samples,): {advice}")
    if not np.issubdtype(array.dtype, np.floating):
        raise UsageError(
            f"a wave has the type {array.dtype}: give floating samples from -1 to 1, mono at 16 kHz"
        )
    return array.astype(np.float32, copy=False)


class SpeechEncoder(Encoder[Wave]):
    """An encoder of mono waves at 16 kHz.

    An utterance of up to ``max_seconds`` is encoded whole. A longer utterance is encoded in windows
    that overlap by at least ``OVERLAP_SECONDS`` and are cut in the middle of the overlap. It has as
    many frames as if it were encoded whole, without memory that grows with the square of its
    length.
    """

    modality = "speech"
    hop: int  # samples from one frame to the next
    receptive_field: int  # samples that a frame depends on

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        self.max_seconds = settings.max_seconds
        if not 2 * OVERLAP_SECONDS <= self.max_seconds < math.inf:
            raise UsageError(
                f"windows of {self.max_seconds:g} s: give a finite number of seconds, "
                f"{2 * OVERLAP_SECONDS:g} or more, since windows overlap by {OVERLAP_SECONDS:g} s"
            )
        _ = self.normalised  # an extractor that does not fit raises its error now, before any work

    def input_identity(self) -> dict[str, Any]:
        """Return sample rate, downmix, resampling, normalisation and windows."""
        return {
            **AUDIO_IDENTITY,
            "normalised": self.normalised,
            "window_seconds": [self.max_seconds, OVERLAP_SECONDS],
        }

    @cached_property
    def extractor(self) -> Any:
        """The feature extractor that was saved with the model.

        Raises:
            PipelineError: it expects another sample rate.
        """
        from transformers import AutoFeatureExtractor  # noqa: PLC0415 -- seconds to import

        files = self.settings.files
        extractor = AutoFeatureExtractor.from_pretrained(files.folder, local_files_only=True)
        if extractor.sampling_rate != SAMPLE_RATE:
            raise PipelineError(
                f"'{files.name}' expects audio at {extractor.sampling_rate} Hz: "
                f"choose an encoder for {SAMPLE_RATE} Hz"
            )
        return extractor

    @property
    def normalised(self) -> bool:
        """Whether a wave is scaled to mean 0 and variance 1, as in the training of the model."""
        return bool(getattr(self.extractor, "do_normalize", False))

    @abstractmethod
    def frames_of(self, samples: int) -> int:
        """Return the number of frames for a number of samples; 0 if these are too few."""

    @abstractmethod
    def preprocess(self, wave: Wave) -> np.ndarray[Any, Any]:
        """Preprocess a wave (samples,) as in the training of the model."""

    def frames(self, utterance: Wave) -> int:
        """Return the number of frames of a wave (samples,); 0 if it is too short for a frame."""
        return self.frames_of(len(checked_wave(utterance)))

    def planned_frames(self, source: Any, seconds: float) -> int:
        """Return how many frames a clip of so many seconds will have."""
        return self.frames_of(int(seconds * SAMPLE_RATE))

    def windows_of(self, samples: int) -> int:
        """Return the number of windows for a number of samples."""
        return len(self._cut(samples))

    def prepare(self, utterance: Wave) -> list[Window]:
        """Preprocess a wave (samples,) float32, and cut it into windows if it is long."""
        utterance = checked_wave(utterance)
        values = self.preprocess(utterance)
        windows = self._cut(len(utterance))
        if len(windows) == 1:
            return [Window(values, windows[0][1].stop, windows[0][1])]
        size = self._window_frames()
        return [Window(self.part(values, start, size), size, kept) for start, kept in windows]

    def part(self, values: np.ndarray[Any, Any], start: int, size: int) -> np.ndarray[Any, Any]:
        """Return the part of the input from which the model makes ``size`` frames."""
        samples = (size - 1) * self.hop + self.receptive_field
        return values[start * self.hop : start * self.hop + samples]

    def _cut(self, samples: int) -> list[tuple[int, slice]]:
        overlap = int(OVERLAP_SECONDS * SAMPLE_RATE) // self.hop
        return cut(self.frames_of(samples), self._window_frames(), overlap)

    def _window_frames(self) -> int:
        return self.frames_of(int(self.max_seconds * SAMPLE_RATE))
