"""Small lossless videos of known pictures, at known times."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

TICKS = 1000  # of a second, for times that are given
LOSSLESS: dict[str, Any] = {"codec": "ffv1", "pixels": "bgr0"}  # for Matroska, which has no PNG


def pictures(count: int, height: int = 24, width: int = 32) -> Any:
    """Return pictures (count, height, width, 3) uint8 that all differ, as do their corners."""
    rng = np.random.default_rng([count, height, width])
    return rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def write_video(
    path: Path,
    shown: Any,
    times: Sequence[float] | None = None,
    *,
    rate: int = 10,
    codec: str = "png",
    pixels: str = "rgb24",
    kind: str | None = None,
    rotation: int = 0,
    sound: Any = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """Write pictures (n, height, width, 3) uint8, each shown from its time on, in seconds.

    ``kind`` is the container, by default that of the suffix; ``rotation`` is counter-clockwise, in
    degrees; ``sound`` (samples,) is int16 at 16 kHz.
    """
    ticks = rate if times is None else TICKS
    begins = [number / rate for number in range(len(shown))] if times is None else times
    with av.open(str(path), "w", format=kind, options=container or {}) as file:
        stream: Any = file.add_stream(codec, rate=rate, options=options or {})
        stream.thread_count = 1
        stream.height, stream.width = shown.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, ticks)
        if rotation:
            stream.set_display_rotation(rotation)
        heard: Any = None
        if sound is not None:
            heard = file.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for picture, time in zip(shown, begins, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = round(time * ticks), Fraction(1, ticks)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if heard is not None:
            wave = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
            wave.sample_rate, wave.pts = 16_000, 0
            file.mux([*heard.encode(wave), *heard.encode(None)])
    return path
