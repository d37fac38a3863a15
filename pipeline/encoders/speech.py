"""What speech encoders share: a wave at 16 kHz in, frames out, long audio in windows."""

from abc import abstractmethod
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import PipelineError, UsageError
from .encoder import Encoder, EncoderSettings
from .windows import Window, cut

SAMPLE_RATE = 16_000
OVERLAP_SECONDS = 2.0

Wave = np.ndarray[Any, np.dtype[np.float32]]


class SpeechEncoder(Encoder[Wave]):
    """An encoder of mono waves at 16 kHz.

    An utterance of up to ``max_seconds`` is encoded whole. A longer one goes through in windows
    that overlap by ``OVERLAP_SECONDS`` at least and are cut in the middle of the overlap, so that
    it has just as many frames as it would have whole, and no memory grows with its square.
    """

    modality = "speech"
    hop: int  # samples from one frame to the next
    field: int  # samples of which a frame is made

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        self.max_seconds = settings.max_seconds
        if not self.max_seconds >= 2 * OVERLAP_SECONDS:
            raise UsageError(
                f"windows of {self.max_seconds:g} s: give {2 * OVERLAP_SECONDS:g} s or more, "
                f"since they overlap by {OVERLAP_SECONDS:g} s"
            )
        _ = self.normalised  # preprocessing that does not fit is refused before any work

    def input_identity(self) -> dict[str, Any]:
        """Return sample rate, downmix, resampling, normalisation and windows."""
        return {
            "sample_rate": SAMPLE_RATE,
            "downmix": "libswresample to mono, weights summing to one; mean of unknown channels",
            "resampler": "torchaudio sinc_interp_hann, width 6, rolloff 0.99; scipy at odd rates",
            "normalised": self.normalised,
            "window_seconds": [self.max_seconds, OVERLAP_SECONDS],
        }

    @cached_property
    def extractor(self) -> Any:
        """The feature extractor that was saved with the model.

        Raises:
            PipelineError: it wants another sample rate.
        """
        from transformers import AutoFeatureExtractor  # noqa: PLC0415 -- seconds to import

        files = self.settings.files
        extractor = AutoFeatureExtractor.from_pretrained(files.folder, local_files_only=True)
        if extractor.sampling_rate != SAMPLE_RATE:
            raise PipelineError(
                f"'{files.name}' wants audio at {extractor.sampling_rate} Hz: "
                f"choose an encoder that takes {SAMPLE_RATE} Hz"
            )
        return extractor

    @property
    def normalised(self) -> bool:
        """Whether a wave is brought to mean 0 and variance 1, as the model was trained."""
        return bool(getattr(self.extractor, "do_normalize", False))

    @abstractmethod
    def frames_of(self, samples: int) -> int:
        """Return how many frames so many samples give; 0 if there are too few for one."""

    @abstractmethod
    def preprocess(self, one: Wave) -> np.ndarray[Any, Any]:
        """Do with a wave (samples,), or with the window of one, what the model was trained on."""

    def frames(self, one: Wave) -> int:
        """Return how many frames a wave (samples,) gives; 0 if it is too short for one."""
        return self.frames_of(len(one))

    def planned_frames(self, source: Any, seconds: float) -> int:
        """Return how many frames a clip of so many seconds will have."""
        return self.frames_of(int(seconds * SAMPLE_RATE))

    def windows_of(self, samples: int) -> int:
        """Return in how many windows a wave of so many samples is encoded."""
        return len(self._cut(samples))

    def prepare(self, one: Wave) -> list[Window]:
        """Preprocess a wave (samples,) float32, and cut it if it is long."""
        values = self.preprocess(one)
        windows = self._cut(len(one))
        if len(windows) == 1:
            return [Window(values, windows[0][1].stop, windows[0][1])]
        size = self._window_frames()
        return [
            Window(
                values[start * self.hop : (start + size - 1) * self.hop + self.field], size, kept
            )
            for start, kept in windows
        ]

    def _cut(self, samples: int) -> list[tuple[int, slice]]:
        overlap = int(OVERLAP_SECONDS * SAMPLE_RATE) // self.hop
        return cut(self.frames_of(samples), self._window_frames(), overlap)

    def _window_frames(self) -> int:
        return self.frames_of(int(self.max_seconds * SAMPLE_RATE))
