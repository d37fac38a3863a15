"""Decode the frames that a video shows at chosen times."""

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, BinaryIO

import av
import numpy as np

from ..corpora.utterance import Footage
from ..encoders.frame_choice import FrameChoice
from ..encoders.vision import Frame
from .audio import LONGEST, BadClipError, reason_of

_MOST_PIXELS = 2**26  # of a frame; a damaged header may give more than the memory holds
_SLACK = Fraction(1, 5)  # seconds by which the length in a header may be wrong
_ESTIMATED = ("mpeg", "mpegts")  # FFmpeg estimates the length of these from the size of the file
_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC: the cover of a song


def probe_video(file: BinaryIO) -> float:
    """Return the length of a video in seconds; 0 if it has none, as a picture.

    The container gives the length, else the times of the packets do.

    Raises:
        BadClipError: the container cannot be read or has no video stream.
    """
    with _open(file) as container:
        stream = _video_stream(container)
        seconds = _length(container, stream)
    if 0 < seconds <= LONGEST:
        return float(seconds)
    begin, end = _span(file)
    return float(end - begin)


def chosen_frames(file: BinaryIO, footage: Footage, choice: FrameChoice) -> Iterator[Frame]:
    """Yield the frames of ``footage`` that are chosen, each (height, width, 3) uint8, RGB.

    A frame is shown from its own time to that of the next one, whatever the frame rate. It is
    turned upright by the video's display matrix, and widened or narrowed if its pixels are not
    square. Only one frame is in memory at a time.

    Raises:
        BadClipError: the video is cut off or cannot be decoded, shows nothing at the times of the
            footage, lasts more than an hour, or has too large frames.
    """
    if footage.start is None and footage.end is None:
        begin, end = _span(file)
    else:
        begin, end = _part(file, footage)
    if end - begin > LONGEST:
        raise BadClipError(
            "too-long", f"it lasts more than {LONGEST / 60:.0f} minutes: cut it into utterances"
        )
    instants = choice.instants(begin, end)
    with _open(file) as container:
        stream = _video_stream(container)
        stream.thread_type = "NONE"  # other threads decode other videos
        if footage.start:
            _seek(container, stream, begin)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        # A container rounds times to its own ticks: a frame may come half a tick before its time.
        early = [instant + stream.time_base / 2 for instant in instants]
        shown: Any = None
        for frame in _at(early, _decoded(container, stream)):
            if frame is not shown:  # else it is shown for longer than a step
                shown, picture = frame, _half(_upright(frame, aspect), footage.side)
            yield picture


def _at(instants: Iterable[Fraction], decoded: Iterator[tuple[Fraction, Any]]) -> Iterator[Any]:
    """Yield for each time the frame that is shown: the last one that does not come after it.

    The first frame is also shown before its time, and the last one after it. The video is decoded
    only as far as this takes.
    """
    _, shown = next(decoded, (None, None))
    if shown is None:
        raise BadClipError("empty", "its video stream has no frames")
    time, following = next(decoded, (None, None))
    for instant in instants:
        while time is not None and time <= instant:
            shown = following
            time, following = next(decoded, (None, None))
        yield shown


def _decoded(container: Any, stream: Any) -> Iterator[tuple[Fraction, Any]]:
    """Yield each frame with its time in seconds, in the order in which they are shown."""
    step = 1 / Fraction(stream.average_rate or 25)
    time = _zero(container) - step
    count = 0
    try:
        for frame in container.decode(stream):
            stamp = frame.pts if frame.pts is not None else frame.dts
            time = time + step if stamp is None else stamp * frame.time_base
            count += 1
            yield time - _zero(container), frame
    except (av.FFmpegError, ValueError) as error:
        end = f"stops after {count} frames" if count else "fails at its beginning"
        raise BadClipError("unreadable", f"decoding {end} ({reason_of(error)})") from error


def _span(file: BinaryIO) -> tuple[Fraction, Fraction]:
    """Return when the first frame of a video appears, and when the last one ends, in seconds.

    The packets give the times, so nothing is decoded.

    Raises:
        BadClipError: the file ends within a packet, or before the last packet that its header
            announces.
    """
    with _open(file) as container:
        stream = _video_stream(container)
        step = 1 / Fraction(stream.average_rate or 25)
        begins: list[Fraction] = []
        ends: list[Fraction] = []
        count, last = 0, Fraction(0)
        try:
            for packet in container.demux():
                if not packet.size:  # the end
                    continue
                stamp = packet.pts if packet.pts is not None else packet.dts
                length = packet.duration * packet.time_base if packet.duration else step
                if stamp is not None:
                    last = max(last, stamp * packet.time_base + length)
                if packet.stream_index != stream.index:
                    continue
                if packet.is_corrupt:
                    raise BadClipError("unreadable", f"it is damaged or cut off in frame {count}")
                count += 1
                if stamp is not None and not packet.is_discard:  # by the edit list of an MP4
                    begins.append(stamp * packet.time_base)
                    ends.append(begins[-1] + length)
        except (av.FFmpegError, ValueError) as error:
            detail = f"reading stops after {count} frames ({reason_of(error)})"
            raise BadClipError("unreadable", detail) from error
        # Only the header of an MP4 or a QuickTime film counts its frames reliably, and only that of
        # a Matroska file gives the end of the last packet, if it gives a length.
        announced = Fraction(container.duration or 0, av.time_base)
        if "mp4" in container.format.name and count < stream.frames:
            detail = f"it is cut off after {count} of {stream.frames} frames"
            raise BadClipError("unreadable", detail)
        if "matroska" in container.format.name and last + _SLACK < announced:
            detail = f"it is cut off after {float(last):.1f} of {float(announced):.1f} s"
            raise BadClipError("unreadable", detail)
        if not begins:
            return Fraction(0), step * count
        return min(begins) - _zero(container), max(ends) - _zero(container)


def _part(file: BinaryIO, footage: Footage) -> tuple[Fraction, Fraction]:
    """Return the times of a part of a video, which ends with the video at the latest."""
    with _open(file) as container:
        length = _length(container, _video_stream(container))
    if not length:
        _, length = _span(file)
    begin = _decimal(footage.start or 0.0)
    end = length if footage.end is None else _decimal(footage.end)
    end = min(end, length)
    if end <= begin:
        detail = f"the video ends after {float(length):.1f} s, before the utterance begins"
        raise BadClipError("empty", detail)
    return begin, end


def _decimal(seconds: float) -> Fraction:
    """Return 41/20 for 2.05, which a float is only close to."""
    return Fraction(seconds).limit_denominator(1_000_000)


def _length(container: Any, stream: Any) -> Fraction:
    """Return the length of a video in seconds that its container gives; 0 if it gives none."""
    if container.format.name in _ESTIMATED:
        return Fraction(0)
    if stream.duration:
        return Fraction(stream.duration * stream.time_base)
    return Fraction(container.duration or 0, av.time_base)


def _zero(container: Any) -> Fraction:
    """Return the time at which the container begins, of its sound or its picture."""
    return Fraction(container.start_time or 0, av.time_base)


def _seek(container: Any, stream: Any, time: Fraction) -> None:
    """Go to the last key frame before a time; a container that cannot is read from its begin."""
    try:
        container.seek(int((time + _zero(container)) / stream.time_base), stream=stream)
    except av.FFmpegError as error:
        raise BadClipError("unreadable", f"seeking fails ({reason_of(error)})") from error


def _upright(frame: Any, aspect: Fraction) -> Frame:
    """Return a frame as it is to be shown, (height, width, 3) uint8, RGB."""
    if not 0 < frame.width * frame.height <= _MOST_PIXELS:
        detail = f"a frame has {frame.width} x {frame.height} pixels"
        raise BadClipError("unreadable", detail)
    width = max(1, round(frame.width * aspect))
    if width * frame.height > _MOST_PIXELS:
        raise BadClipError("unreadable", f"its pixels have the aspect {aspect}")
    try:
        picture = frame.reformat(width=width, format="rgb24").to_ndarray()
    except (av.FFmpegError, ValueError) as error:
        raise BadClipError("unreadable", f"its colours ({reason_of(error)})") from error
    turned: Frame = np.rot90(picture, round(frame.rotation / 90) % 4)
    return turned


def _half(picture: Frame, side: str | None) -> Frame:
    if side is None:
        return picture
    half = max(1, picture.shape[1] // 2)
    return picture[:, :half] if side == "left" else picture[:, -half:]


def _open(file: BinaryIO) -> Any:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    announced = int.from_bytes(head[4:8], "little") + 8
    if head[:4] == b"RIFF" and size < announced < 2**32:  # FFmpeg would decode the part
        raise BadClipError("unreadable", f"it is cut off after {size} of {announced} bytes")
    file.seek(0)
    try:
        # Allow no protocol: a playlist must not make FFmpeg open other files or hosts.
        options = {"protocol_whitelist": "none"}
        return av.open(file, metadata_errors="ignore", options=options)
    except (av.FFmpegError, ValueError) as error:
        detail = f"it is not a video, or damaged: FFmpeg cannot open it ({reason_of(error)})"
        raise BadClipError("unreadable", detail) from error


def _video_stream(container: Any) -> Any:
    streams = [s for s in container.streams.video if not int(s.disposition) & _ATTACHED_PICTURE]
    if not streams:
        raise BadClipError("no-video", "it has no video stream")
    stream = streams[0]
    if stream.codec_context is None:
        raise BadClipError("unreadable", "FFmpeg has no decoder for its video stream")
    if not (stream.width and stream.height):
        raise BadClipError("unreadable", "its header gives frames without a size")
    return stream
