"""From a clip, whatever its container, to one channel at 16 kHz."""

import io
import stat
from math import gcd
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torchaudio.functional import resample

from ..corpora.git_lfs import POINTER
from ..encoders.speech import SAMPLE_RATE, Wave

SILENCE = 1e-4  # peak amplitude (-80 dBFS) under which a clip holds no voice
LOUDEST = 2.0**31  # that of 32-bit integers written as floats; squares of far more overflow
LONGEST = 3600.0  # seconds
_LARGEST = 2**31  # bytes of a file
_HIGHEST_RATE = 2**20  # Hz
_LARGEST_FILTER = 2**22  # coefficients that torchaudio may keep to change the rate


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
        BadClipError: there is no such file, it cannot be read, it is empty or far too large, or it
            only stands for the clip in a clone without Git LFS.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a named pipe might never end
            kind = "folder" if stat.S_ISDIR(status.st_mode) else "pipe, socket or device"
            raise BadClipError("unreadable", f"{path} is a {kind}, not a file", passing=True)
        if status.st_size > _LARGEST:
            detail = f"{path} has {status.st_size / 2**30:.1f} GiB: cut it into utterances"
            raise BadClipError("too-large", detail, passing=True)
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadClipError("absent", f"there is no file {path}", passing=True) from None
    except OSError as error:
        detail = f"{path} cannot be read: {error.strerror}"
        raise BadClipError("unreadable", detail, passing=True) from error
    if not content:
        raise BadClipError("empty", f"{path} holds no bytes")
    if content.startswith(POINTER):
        detail = f"{path} is a Git LFS pointer, not audio: run 'git lfs pull' where it was cloned"
        raise BadClipError("git-lfs-pointer", detail, passing=True)
    return content


def probe(content: bytes) -> float:
    """Return how many seconds a clip lasts.

    That is what its container says, without decoding it, unless it says nothing or what cannot be:
    a container that was written to a pipe does not know its own length.

    Raises:
        BadClipError: the container cannot be read or has no audio stream, or the clip had to be
            decoded and cannot be.
    """
    with _open(content) as container:
        stream = _audio_stream(container)
        if stream.duration is not None:
            seconds = float(stream.duration * stream.time_base)
        else:
            seconds = (container.duration or 0) / av.time_base
    if 0 < seconds <= LONGEST:
        return seconds
    return len(decode(content)) / SAMPLE_RATE


def decode(content: bytes) -> Wave:
    """Decode a clip's first audio stream to (samples,) float32 at 16 kHz, one channel.

    Any container and codec that FFmpeg knows. Where the clip says what its channels are, they are
    mixed down with the weights of libswresample, which knows those of 5.1, made to sum to one:
    stereo becomes its mean, and the same sound on every channel keeps its level. Channels of which
    nothing is known become their mean. The rate is changed by torchaudio.

    Raises:
        BadClipError: the clip cannot be decoded to its end, is silent, is not a number, or is
            longer or louder than any utterance.
    """
    frames: list[Wave] = []
    rate, samples = SAMPLE_RATE, 0
    with _open(content) as container:
        stream = _audio_stream(container)
        # Only to float: samples of all channels in turn, for PyAV takes no more than 8 apart.
        converter = av.AudioResampler(format="flt")
        try:
            for decoded in container.decode(stream):
                if not frames:
                    rate, weights = decoded.sample_rate, _weights(decoded.layout)
                    _check_rate(rate)
                for part in converter.resample(decoded):
                    interleaved = part.to_ndarray().astype(np.float32, copy=False)
                    frames.append(interleaved.reshape(-1, len(weights)) @ weights)
                    samples += len(frames[-1])
                if samples > LONGEST * rate:
                    minutes = f"{LONGEST / 60:.0f} minutes"
                    raise BadClipError("too-long", f"it lasts more than {minutes}: cut it up")
        except (av.FFmpegError, ValueError) as error:
            done = f"stops after {samples / rate:.1f} s" if samples else "fails at its beginning"
            raise BadClipError("unreadable", f"decoding {done} ({_reason(error)})") from error
    wave: Wave = np.concatenate(frames) if frames else np.zeros(0, dtype=np.float32)
    _check(wave)
    return _resampled(wave, rate)


def _weights(layout: Any) -> Wave:
    """Return the weight (channels,) of each channel in the mix; they sum to one."""
    count = layout.nb_channels
    weights = np.ones(count, dtype=np.float32)
    known = layout.name != f"{count} channels"  # FFmpeg's name for channels without a position
    if count > 1 and known:
        each = np.eye(count, dtype=np.float32).reshape(1, -1)
        try:
            frame = av.AudioFrame.from_ndarray(each, format="flt", layout=layout.name)
            frame.sample_rate = SAMPLE_RATE
            (mixed,) = av.AudioResampler(format="flt", layout="mono").resample(frame)
            mix = mixed.to_ndarray()[0]
        except (av.FFmpegError, ValueError):
            mix = weights  # it knows the positions, and no way from there to one channel
        weights = mix if mix.any() else weights
    normalised: Wave = weights / weights.sum()
    return normalised


def _check_rate(rate: int) -> None:
    if not 0 < rate <= _HIGHEST_RATE:
        raise BadClipError("unreadable", f"its header says that it has {rate} samples a second")


def _check(wave: Wave) -> None:
    if not len(wave):
        raise BadClipError("empty", "its audio stream holds no sample")
    if not np.isfinite(wave).all():
        raise BadClipError("not-finite", "its samples are not all numbers")
    peak = np.abs(wave).max()
    if peak > LOUDEST:
        raise BadClipError("too-loud", f"its loudest sample is {peak:.0e} times full scale")
    if np.abs(wave - wave.mean()).max() < SILENCE:
        raise BadClipError("silent", "no sample is louder than -80 dBFS")


def _resampled(wave: Wave, rate: int) -> Wave:
    """Return a wave (samples,) at 16 kHz."""
    if rate == SAMPLE_RATE:
        return wave
    common = gcd(rate, SAMPLE_RATE)
    if rate * SAMPLE_RATE // common**2 <= _LARGEST_FILTER:
        return resample(torch.from_numpy(wave), rate, SAMPLE_RATE).numpy()  # type: ignore[no-any-return]
    # Such as 11,127 Hz, of old Macintoshes: torchaudio would keep a filter for each of 16,000
    # places between two samples, which takes gigabytes.
    from scipy.signal import resample_poly  # noqa: PLC0415 -- slow to import, and seldom needed

    odd: Wave = resample_poly(wave, SAMPLE_RATE // common, rate // common)
    return odd


def _open(content: bytes) -> Any:
    _check_header(content)
    try:
        # No protocol: a playlist or a session description must not lead to other files or hosts.
        options = {"protocol_whitelist": "none"}
        return av.open(io.BytesIO(content), metadata_errors="ignore", options=options)
    except (av.FFmpegError, ValueError) as error:
        detail = f"it is no sound, or damaged: FFmpeg cannot open it ({_reason(error)})"
        raise BadClipError("unreadable", detail) from error


def _check_header(content: bytes) -> None:
    """Refuse a WAVE file which FFmpeg would take for what it is not."""
    size = int.from_bytes(content[4:8], "little") + 8
    if content[:4] == b"RIFF" and len(content) < size < 2**32:  # FFmpeg takes the part for all
        raise BadClipError("unreadable", f"it is cut off after {len(content)} of {size} bytes")
    if content[:4] == b"RIFX":  # FFmpeg takes its samples for little-endian ones: it hears noise
        raise BadClipError("unreadable", "it is a big-endian WAVE file (RIFX): convert it to RIFF")
    if content[:4] not in (b"RIFF", b"RF64") or content[8:12] != b"WAVE":
        return
    at = 12
    while at < len(content) and content[at : at + 4] != b"data":
        at += 8 + int.from_bytes(content[at + 4 : at + 8], "little")
        at += at % 2
    if at > len(content) + 1:  # FFmpeg allocates what a chunk says that it has
        raise BadClipError("unreadable", "its header is damaged: a part is longer than the file")


def _audio_stream(container: Any) -> Any:
    if not container.streams.audio:
        raise BadClipError("no-audio", "it has no audio stream")
    return container.streams.audio[0]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
