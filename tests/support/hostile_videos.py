"""Forty videos, each with a different fault or oddity, and what must become of each."""

import csv
import io
import struct
import wave
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from mser.tests.support.crema_d_tree import POINTER
from mser.tests.support.videos import LOSSLESS, pictures, write_video

Outcome = int | str
"""How many frames are taken at 5 a second, or the reason of the quarantine."""


def make(folder: Path) -> tuple[Path, dict[str, Outcome]]:  # noqa: PLR0915 -- a list
    """Write the files and a manifest of them; return it, and id → outcome."""
    outcomes: dict[str, Outcome] = {}

    def write(name: str, outcome: Outcome, content: bytes) -> None:
        (folder / name).write_bytes(content)
        outcomes[name] = outcome

    def film(name: str, outcome: Outcome, shown: Any, *times: Any, **more: Any) -> bytes:
        outcomes[name] = outcome
        return write_video(folder / name, shown, *times, **more).read_bytes()

    yuv: dict[str, Any] = {"pixels": "yuv420p"}
    ten = pictures(10, 16, 24)  # a second at 10 frames a second: 5 are taken
    # Containers and codecs
    mov = film("png.mov", 5, ten)
    mkv = film("ffv1.mkv", 5, ten, **LOSSLESS)
    avi = film("mjpeg.avi", 5, ten, codec="mjpeg", pixels="yuvj420p")
    mp4 = film("mpeg4.mp4", 5, ten, codec="mpeg4", **yuv)
    flv = film("flash.flv", 5, ten, codec="flv", **yuv)
    film("mpeg1.mpg", 5, pictures(50, 16, 16), rate=50, codec="mpeg1video", **yuv)
    film("mpeg2.ts", 5, pictures(25, 16, 16), rate=25, codec="mpeg2video", **yuv)
    film("picture.gif", 5, ten, codec="gif", pixels="rgb8")
    film("raw.nut", 5, ten, codec="rawvideo", pixels="rgb24")
    film("huffyuv.avi", 5, ten, codec="huffyuv", pixels="rgb24")
    film("deep.mkv", 5, ten, codec="ffv1", pixels="yuv420p10le")
    film("grey.mkv", 5, ten, codec="ffv1", pixels="gray")
    film("alpha.mkv", 5, ten, codec="ffv1", pixels="bgra")
    write("still.png", 1, png(20, 30))
    write("renamed.mp4", 5, avi)
    # Sizes
    film("odd.mov", 5, pictures(10, 17, 31))
    film("flat.mov", 5, pictures(10, 2, 90))
    film("narrow.mov", 5, pictures(10, 90, 1))
    film("dot.mov", 5, pictures(10, 1, 1))
    film("large.mov", 1, pictures(1, 700, 1300), rate=10)
    write("huge.png", "unreadable", png(20_000, 20_000, rows=1))
    # Times
    film("one.mov", 1, ten[:1])
    film("late.mkv", 5, ten, [3 + i / 10 for i in range(10)], **LOSSLESS)
    film("varying.mkv", 4, ten[:3], [0.0, 0.1, 0.7], rate=10, **LOSSLESS)
    film("slow.mov", 10, ten[:2], rate=1)
    film("rotated.mov", 5, ten, rotation=90)
    film("hours.mkv", "too-long", ten[:2], [0.0, 4000.0], **LOSSLESS)
    # No picture
    write("empty.mp4", "empty", b"")
    write("text.mp4", "unreadable", b"This is a text that was renamed.\n" * 9)
    write("noise.mp4", "unreadable", np.random.default_rng(0).bytes(2000))
    write("playlist.mp4", "unreadable", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    write("pointer.mp4", "git-lfs-pointer", POINTER.encode())
    write("sound.wav", "no-video", tone())
    write("frameless.y4m", "empty", b"YUV4MPEG2 W16 H16 F10:1 C420\n")
    write("sizeless.y4m", "unreadable", b"YUV4MPEG2 W0 H0 F10:1 C420\nFRAME\n")
    outcomes["absent.mp4"] = "absent"
    # Damage
    write("cut.mov", "unreadable", mov[: len(mov) // 2])
    write("cut.avi", "unreadable", avi[: len(avi) - 900])
    write("cut.flv", "unreadable", flv[: len(flv) * 2 // 3])
    write("cut.mkv", "unreadable", mkv[: len(mkv) * 2 // 3])
    write("header.mp4", "unreadable", mp4[:40])
    # Its header is at the begin, where a cut does not remove it.
    begin = film("begin.mov", 5, ten, container={"movflags": "faststart"})
    write("begin.mov", "unreadable", begin[: len(begin) * 2 // 3])
    overwritten = bytearray(mov)
    overwritten[len(mov) // 3 : len(mov) // 2] = bytes(len(mov) // 2 - len(mov) // 3)
    write("hole.mov", "unreadable", bytes(overwritten))

    manifest = folder / "hostile.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "video"), *((name, name) for name in outcomes)])
    return manifest, outcomes


def png(height: int, width: int, rows: int | None = None) -> bytes:
    """Return a black picture; ``rows`` are how many rows it really has."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1 + 3 * width) * (height if rows is None else rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def tone() -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(3200))
    return content.getvalue()
