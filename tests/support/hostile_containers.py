"""Compressed clips, containers with other streams or none, and files that are not clips."""

import gzip
import io
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import av
import numpy as np

from mser.tests.support.clip_outcomes import RATE, Array, Lasts, Outcome, Refused, heard, noise
from mser.tests.support.hostile_wavs import wav, whole

SECONDS = 0.5

Made = Iterator[tuple[str, bytes, Outcome]]
Encode = Callable[[Any], list[Any]]  # from an open file to the packets of a new stream


class Pipe(io.BytesIO):
    """A file without seeking: a container cannot write its length at its start."""

    def seekable(self) -> bool:
        return False


def _sound(file: Any, codec: str, samples: Array, rate: int) -> list[Any]:
    """Encode samples (samples,) as one stream; return its packets."""
    layout, count = ("stereo", 2) if codec == "vorbis" else ("mono", 1)  # it supports only stereo
    stream = file.add_stream(codec, rate=rate, layout=layout, options={"strict": "experimental"})
    voices = np.stack([samples.astype("f4")] * count)
    frame = av.AudioFrame.from_ndarray(voices, format="fltp", layout=layout)
    frame.sample_rate, frame.pts = rate, 0
    return [*stream.encode(frame), *stream.encode(None)]


def _picture(file: Any, codec: str = "mpeg4", kind: str = "yuv420p") -> list[Any]:
    stream = file.add_stream(codec, rate=10)
    stream.width = stream.height = 32
    stream.pix_fmt = kind
    frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
    return [*stream.encode(frame), *stream.encode(None)]


def _made(container: str, *streams: Encode, to: type[io.BytesIO] = io.BytesIO) -> bytes:
    target = to()
    with av.open(target, "w", format=container) as file:
        for packets in [
            encode(file) for encode in streams
        ]:  # all streams must be added before any packet
            file.mux(packets)
    return target.getvalue()


def _clip(container: str, codec: str, rate: int, *more: Encode, **facts: Any) -> bytes:
    samples = noise(rate, int(SECONDS * rate))
    return _made(container, lambda file: _sound(file, codec, samples, rate), *more, **facts)


def lossless() -> Made:
    _, samples = whole(noise(100))
    right = heard(samples)

    def first(file: Any, codec: str = "pcm_s16le") -> list[Any]:
        return _sound(file, codec, samples, RATE)

    def second(file: Any) -> list[Any]:
        return _sound(file, "pcm_s16le", whole(noise(101))[1], RATE)

    for name, container, codec in (
        ("aiff.aif", "aiff", "pcm_s16be"),
        ("sun.au", "au", "pcm_s16be"),
        ("apple.m4a", "ipod", "alac"),
        ("free.flac", "flac", "flac"),
    ):
        yield name, _made(container, partial(first, codec=codec)), right
    flac = bytearray(_made("flac", partial(first, codec="flac")))
    flac[21] |= 0x0F
    flac[22:26] = b"\xff" * 4
    yield "claims-50-days.flac", bytes(flac), right
    yield "two-voices.mkv", _made("matroska", first, second), right
    yield "picture-before-sound.mkv", _made("matroska", _picture, first), right
    yield "a-wav-in-fact.mp3", wav(whole(noise(100))[0]), right
    cut = _made("flac", partial(first, codec="flac"))
    middle = len(cut) // 2
    yield (
        "overwritten.flac",
        cut[:middle] + bytes(999) + cut[middle + 999 :],
        Refused("unreadable", "decoding"),
    )


def lossy() -> Made:
    for name, container, codec, rate, slack in (
        ("vorbis.ogg", "ogg", "vorbis", 44_100, 0.05),
        ("opus.ogg", "ogg", "libopus", 48_000, 0.03),
        ("speech.mp3", "mp3", "libmp3lame", 22_050, 0.08),
        ("speech.m4a", "ipod", "aac", 44_100, 0.05),
        ("speech.aac", "adts", "aac", 16_000, 0.13),
        ("dolby.ac3", "ac3", "ac3", 48_000, 0.04),
        ("adpcm.wav", "wav", "adpcm_ima_wav", 16_000, 0.07),
        ("telephone.amr", "amr", "libopencore_amrnb", 8000, 0.03),
    ):
        yield name, _clip(container, codec, rate), Lasts(SECONDS, slack)
    webm = _clip("webm", "libopus", 48_000, to=Pipe)
    yield "streamed.webm", webm, Lasts(SECONDS, 0.03)
    cover = partial(_picture, codec="mjpeg", kind="yuvj420p")
    yield "with-cover.mp3", _clip("mp3", "libmp3lame", 22_050, cover), Lasts(SECONDS, 0.08)
    mp4 = _clip("mp4", "aac", 48_000, _picture)
    yield "video.mp4", mp4, Lasts(SECONDS, 0.05)
    yield "cut.mp4", mp4[: len(mp4) // 2], Refused("unreadable", "FFmpeg cannot open it")


def without_sound() -> Made:
    none = Refused("no-audio", "it has no audio stream")
    yield "silent-film.mp4", _made("mp4", _picture), none
    yield "picture.wav", _made("image2pipe", partial(_picture, codec="png", kind="rgb24")), none
    yield "subtitles.wav", b"1\n00:00:00,000 --> 00:00:02,000\nI was so glad.\n\n", none


def no_clips() -> Made:
    """Files that are not audio, and playlists that would make FFmpeg open files and hosts."""
    sound = wav(whole(noise(110))[0])
    unreadable = Refused("unreadable", "FFmpeg cannot open it")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("clip.wav", sound)
    pages = "<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>Gone</body></html>"
    yield "archive.wav", archive.getvalue(), unreadable
    yield "compressed.wav.gz", gzip.compress(sound), unreadable
    yield "page.mp3", pages.encode(), unreadable
    yield "text.wav", b"I was so glad to see you.\n" * 40, unreadable
    yield "noise.wav", np.random.default_rng(111).bytes(20_000), unreadable
    yield "zeros.wav", bytes(20_000), unreadable
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0a' * 32}\nsize 16044\n"
    yield "pointer.wav", pointer.encode(), Refused("git-lfs-pointer", "git lfs pull")
    yield "list.wav", b"ffconcat version 1.0\nfile corpus/free.flac\n", unreadable
    yield "list.m3u8", b"#EXTM3U\n#EXTINF:1,\nfree.flac\n#EXT-X-ENDLIST\n", unreadable
    session = ("v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=x", "c=IN IP4 127.0.0.1", "t=0 0")
    media = ("m=audio 5004 RTP/AVP 0", "a=rtpmap:0 PCMU/8000")
    yield "session.sdp", "\r\n".join([*session, *media, ""]).encode(), unreadable


def make() -> Made:
    """Yield the name of each file, its bytes, and its expected outcome."""
    for group in (lossless, lossy, without_sound, no_clips):
        yield from group()
