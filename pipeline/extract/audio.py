"""Read a clip of any container, and decode it to one channel at 16 kHz."""

import io
import stat
from math import gcd
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import torch

from ..corpora.git_lfs import is_pointer
from ..encoders.speech import SAMPLE_RATE, Wave
from .resampling import resampled

SILENCE = 1e-4  # peak amplitude (-80 dBFS); a clip below it has no voice
LOUDEST = 2.0**31  # peak of 32-bit integers stored as floats; much larger squares would overflow
LONGEST = 3600.0  # seconds
_LARGEST = 2**31  # bytes of a file
_HIGHEST_RATE = 2**20  # Hz
_PART = 60.0  # seconds that are converted at once
_PLANES = 8  # channels of planar samples that PyAV can read
_LARGEST_FILTER = 2**22  # coefficients that resampling may keep


class BadClipError(Exception):
    """A clip that cannot be used.

    Attributes:
        reason: one word, such as ``silent``.
        detail: a sentence for the user.
        transient: whether the next run should try again although the content is the same, because
            the content may be good.
    """

    def __init__(self, reason: str, detail: str, *, transient: bool = False) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.transient = transient


def open_clip(path: Path, kind: str = "audio") -> BinaryIO:
    """Open a clip's file; ``kind`` is what it should hold, for the message of a pointer.

    Raises:
        BadClipError: the file does not exist, cannot be read, is empty or larger than 2 GiB, or is
            a Git LFS pointer.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a named pipe might never end
            kind = "folder" if stat.S_ISDIR(status.st_mode) else "pipe, socket or device"
            raise BadClipError("unreadable", f"{path} is a {kind}, not a file", transient=True)
        if status.st_size > _LARGEST:
            detail = f"{path} has {status.st_size / 2**30:.1f} GiB: cut it into utterances"
            raise BadClipError("too-large", detail, transient=True)
        if not status.st_size:
            raise BadClipError("empty", f"{path} is an empty file")
        file = path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from error
    if is_pointer(path):
        file.close()
        detail = f"{path} is a Git LFS pointer, not {kind}: run 'git lfs pull' where it was cloned"
        raise BadClipError("git-lfs-pointer", detail, transient=True)
    return file


def unreadable(path: Path, error: OSError) -> BadClipError:
    """Return the error for a file that is not there, or cannot be read."""
    if isinstance(error, FileNotFoundError):
        return BadClipError("absent", f"the file {path} does not exist", transient=True)
    return BadClipError("unreadable", f"{path} cannot be read: {error.strerror}", transient=True)


def read_clip(path: Path) -> bytes:
    """Return the bytes of a clip's file.

    Raises:
        BadClipError: see :func:`open_clip`.
    """
    try:
        with open_clip(path) as file:
            return file.read()
    except OSError as error:
        raise unreadable(path, error) from error


def has_sound(path: Path) -> bool:
    """Return whether a video has an audio stream; ``True`` if it cannot be read."""
    try:
        with _open(read_clip(path)) as container:
            return bool(container.streams.audio)
    except BadClipError:
        return True  # reading it as audio says what is wrong


def probe(content: bytes) -> float:
    """Return the length of a clip in seconds.

    The container gives the length. If the container has no length or an impossible one, as when it
    was written to a pipe, the clip is decoded.

    Raises:
        BadClipError: the container cannot be read or has no audio stream, or decoding fails.
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

    FFmpeg reads any container and codec. If the clip names its channels (stereo, 5.1 and others),
    they are mixed down with the weights of libswresample, scaled to sum to one: stereo becomes its
    mean, and the same sound on every channel keeps its level. Channels without a name become their
    mean. :mod:`.resampling` changes the sample rate; scipy does for unusual rates.

    Raises:
        BadClipError: the clip cannot be decoded to its end, is silent, contains infinite values or
            NaN, lasts more than an hour, or is louder than any recording.
    """
    parts: list[Wave] = []
    rate, samples = SAMPLE_RATE, 0
    with _open(content) as container:
        stream = _audio_stream(container)
        # Most codecs give short frames: one conversion of many takes far less time than many.
        gathered = av.AudioFifo()
        try:
            for decoded in container.decode(stream):
                if not samples:
                    rate, mix = decoded.sample_rate, _Mix(decoded.layout)
                    _check_rate(rate)
                samples += decoded.samples
                decoded.pts = None  # the samples follow each other, whatever the clip says
                gathered.write(decoded)
                if gathered.samples >= _PART * rate:
                    parts.append(mix(gathered.read()))
                if samples > LONGEST * rate:
                    minutes = f"{LONGEST / 60:.0f} minutes"
                    raise BadClipError(
                        "too-long", f"it lasts more than {minutes}: cut it into utterances"
                    )
            if gathered.samples:
                parts.append(mix(gathered.read()))
        except (av.FFmpegError, ValueError) as error:
            end = f"stops after {samples / rate:.1f} s" if samples else "fails at its beginning"
            raise BadClipError("unreadable", f"decoding {end} ({reason_of(error)})") from error
    wave: Wave = np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
    _check(wave)
    return _resampled(wave, rate)


class _Mix:
    """Turns frames of one layout into one channel."""

    def __init__(self, layout: Any) -> None:
        self.weights = _weights(layout)
        # Interleaved floats: for planar samples PyAV allows at most 8 channels.
        self.converter = av.AudioResampler(format="flt")

    def __call__(self, frame: Any) -> Wave:
        """Return the samples (samples,) of a frame."""
        if frame.format.name == "fltp" and len(self.weights) <= _PLANES:
            channels = frame.to_ndarray()
        else:
            converted = [part.to_ndarray() for part in self.converter.resample(frame)]
            interleaved = np.concatenate(converted, axis=1, dtype=np.float32)
            channels = interleaved.reshape(-1, len(self.weights)).T
        wave: Wave = channels[0] * self.weights[0]
        for channel, weight in zip(channels[1:], self.weights[1:], strict=True):
            wave += channel * weight
        return wave


def _weights(layout: Any) -> Wave:
    """Return the weights (channels,) of the channels in the mix; they sum to one."""
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
            mix = weights  # libswresample has no weights for these positions
        weights = mix if mix.any() else weights
    normalised: Wave = weights / weights.sum()
    return normalised


def _check_rate(rate: int) -> None:
    if not 0 < rate <= _HIGHEST_RATE:
        raise BadClipError("unreadable", f"its header gives a sample rate of {rate} Hz")


def _check(wave: Wave) -> None:
    if not len(wave):
        raise BadClipError("empty", "its audio stream has no samples")
    if not np.isfinite(wave).all():
        raise BadClipError("not-finite", "its samples contain infinite values or NaN")
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
        return resampled(torch.from_numpy(wave), rate, SAMPLE_RATE).numpy()
    # For example 11,127 Hz, from old Macintoshes: there would be a filter for each of 16,000
    # positions between two samples, which takes gigabytes.
    from scipy.signal import resample_poly  # noqa: PLC0415 -- slow to import, rarely needed

    converted: Wave = resample_poly(wave, SAMPLE_RATE // common, rate // common)
    return converted


def _open(content: bytes) -> Any:
    _check_header(content)
    try:
        # Allow no protocol: a playlist must not make FFmpeg open other files or hosts.
        options = {"protocol_whitelist": "none"}
        return av.open(io.BytesIO(content), metadata_errors="ignore", options=options)
    except (av.FFmpegError, ValueError) as error:
        detail = f"it is not audio, or damaged: FFmpeg cannot open it ({reason_of(error)})"
        raise BadClipError("unreadable", detail) from error


def _check_header(content: bytes) -> None:
    """Reject a WAVE file that FFmpeg would misread without an error."""
    size = int.from_bytes(content[4:8], "little") + 8
    if content[:4] == b"RIFF" and len(content) < size < 2**32:  # FFmpeg would decode the part
        raise BadClipError("unreadable", f"it is cut off after {len(content)} of {size} bytes")
    if content[:4] == b"RIFX":  # FFmpeg would read its samples as little-endian: noise
        raise BadClipError("unreadable", "it is a big-endian WAVE file (RIFX): convert it to RIFF")
    if content[:4] not in (b"RIFF", b"RF64") or content[8:12] != b"WAVE":
        return
    offset = 12
    while offset < len(content) and content[offset : offset + 4] != b"data":
        offset += 8 + int.from_bytes(content[offset + 4 : offset + 8], "little")
        offset += offset % 2
    if offset > len(content) + 1:  # FFmpeg would allocate the size that a chunk's header gives
        raise BadClipError("unreadable", "its header is damaged: a chunk is longer than the file")


def _audio_stream(container: Any) -> Any:
    if not container.streams.audio:
        raise BadClipError("no-audio", "it has no audio stream")
    return container.streams.audio[0]


def reason_of(error: Exception) -> str:
    """Return what FFmpeg says of an error."""
    return getattr(error, "strerror", None) or str(error)
