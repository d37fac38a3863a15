"""From a clip, whatever its container, to one channel at 16 kHz."""

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torchaudio.functional import resample

from .encoders.speech import SAMPLE_RATE, Wave

SILENCE = 1e-4  # peak amplitude (-80 dBFS) under which a clip holds no voice


class BadClipError(Exception):
    """A clip that cannot be used: ``reason`` is a word, ``detail`` a sentence.

    ``passing`` says that the content may not be at fault, so that it is worth another try as it is.
    """

    def __init__(self, reason: str, detail: str, *, passing: bool = False) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.passing = passing


def read_clip(path: Path) -> bytes:
    """Read a clip's file.

    Raises:
        BadClipError: there is no such file, it cannot be read, or it is empty.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadClipError("absent", f"there is no file {path}", passing=True) from None
    except OSError as error:
        raise BadClipError("unreadable", f"{path}: {error.strerror}", passing=True) from error
    if not content:
        raise BadClipError("empty", f"{path} holds no bytes")
    return content


def probe(content: bytes) -> float:
    """Return how many seconds a clip lasts by its container's own account, without decoding it.

    Raises:
        BadClipError: the container cannot be read, or has no audio stream.
    """
    with _open(content) as container:
        stream = _audio_stream(container)
        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        return float((container.duration or 0) / av.time_base)


def decode(content: bytes) -> Wave:
    """Decode a clip's first audio stream to (samples,) float32 at 16 kHz, one channel.

    Any container and codec that FFmpeg knows. Channels are mixed down by libswresample, which knows
    what the channels of 5.1 are, with weights that sum to one: stereo becomes its mean, and the
    same sound on every channel keeps its level. The rate is changed by torchaudio.

    Raises:
        BadClipError: the clip cannot be decoded to its end, is silent, or is not a number.
    """
    frames: list[np.ndarray[Any, Any]] = []
    rate, gain = SAMPLE_RATE, 1.0
    with _open(content) as container:
        stream = _audio_stream(container)
        # The rate stays the file's own here: this resampler only mixes and converts to float.
        mixer = av.AudioResampler(format="flt", layout="mono")
        try:
            for decoded in container.decode(stream):
                if not frames:
                    rate, gain = decoded.sample_rate, _mix_gain(decoded.layout)
                frames.extend(mixed.to_ndarray()[0] for mixed in mixer.resample(decoded))
            frames.extend(mixed.to_ndarray()[0] for mixed in mixer.resample(None))
        except (av.FFmpegError, ValueError) as error:
            done = sum(map(len, frames)) / rate
            raise BadClipError(
                "unreadable", f"decoding stops after {done:.1f} s ({_reason(error)})"
            ) from error
    wave: Wave = np.concatenate(frames) if frames else np.zeros(0, dtype=np.float32)
    if not len(wave):
        raise BadClipError("empty", "its audio stream holds no sample")
    if not np.isfinite(wave).all():
        raise BadClipError("not-finite", "its samples are not all numbers")
    if np.abs(wave - wave.mean()).max() < SILENCE:
        raise BadClipError("silent", "no sample is louder than -80 dBFS")
    wave /= np.float32(gain)
    if rate == SAMPLE_RATE:
        return wave
    return resample(torch.from_numpy(wave), rate, SAMPLE_RATE).numpy()  # type: ignore[no-any-return]


def _mix_gain(layout: Any) -> float:
    """Return what libswresample's mix makes of the same sample, one, on every channel."""
    if layout.nb_channels == 1:
        return 1.0
    ones = np.ones((1, layout.nb_channels), dtype=np.float32)
    frame = av.AudioFrame.from_ndarray(ones, format="flt", layout=layout.name)
    frame.sample_rate = SAMPLE_RATE
    (mixed,) = av.AudioResampler(format="flt", layout="mono").resample(frame)
    return float(mixed.to_ndarray()[0, 0])


def _open(content: bytes) -> Any:
    size = int.from_bytes(content[4:8], "little") + 8
    if content[:4] == b"RIFF" and len(content) < size < 2**32:  # FFmpeg takes the part for all
        raise BadClipError("unreadable", f"it is cut off after {len(content)} of {size} bytes")
    try:
        return av.open(io.BytesIO(content), metadata_errors="ignore")
    except (av.FFmpegError, ValueError) as error:
        raise BadClipError(
            "unreadable", f"no container FFmpeg can open ({_reason(error)})"
        ) from error


def _audio_stream(container: Any) -> Any:
    if not container.streams.audio:
        raise BadClipError("no-audio", "it has no audio stream")
    return container.streams.audio[0]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
