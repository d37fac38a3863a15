"""WAVE files, built byte by byte: every sample format, and wrong headers."""

import struct
from collections.abc import Iterator

import numpy as np

from mser.tests.support.clip_outcomes import RATE, Array, Lasts, Outcome, Refused, heard, noise

PCM, FLOAT, A_LAW, MU_LAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
UNKNOWN_SIZE = 0xFFFFFFFF  # of a file that is written to a pipe
_SUBFORMAT = bytes.fromhex("0100000000001000800000aa00389b71")  # KSDATAFORMAT_SUBTYPE_PCM
_FRONT_5_1 = 0x3F  # left, right, centre, bass, back left, back right

Made = Iterator[tuple[str, bytes, Outcome]]


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    size = len(content) if size is None else size
    return name + struct.pack("<I", size) + content + b"\0" * (len(content) % 2)


def form(
    tag: int = PCM,
    channels: int = 1,
    rate: int = RATE,
    bits: int = 16,
    align: int | None = None,
    extra: bytes = b"",
) -> bytes:
    """Return the content of the chunk ``fmt``."""
    align = channels * bits // 8 % 2**16 if align is None else align
    return struct.pack("<HHIIHH", tag, channels, rate, rate * align % 2**32, align, bits) + extra


def riff(*chunks: bytes, size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def wav(data: bytes, size: int | None = None, data_size: int | None = None, **header) -> bytes:
    return riff(chunk(b"fmt ", form(**header)), chunk(b"data", data, data_size), size=size)


def extensible(data: bytes, channels: int, mask: int) -> bytes:
    extra = struct.pack("<HHI", 22, 16, mask) + _SUBFORMAT
    return wav(data, tag=EXTENSIBLE, channels=channels, extra=extra)


def whole(samples: Array, width: int = 2) -> tuple[bytes, Array]:
    """Return samples as integers of ``width`` bytes, and their values."""
    scale = 2 ** (8 * width - 1)
    numbers = np.round(samples * (scale - 1)).astype("<i8")
    if width == 1:
        data = (numbers + 128).astype("u1").tobytes()  # the only width without a sign
    else:
        data = numbers[..., None].view("u1")[..., :width].tobytes()
    return data, numbers / scale


def _mu_law(code: Array) -> Array:
    """Return the value of a μ-law code by G.711."""
    code = ~code
    size = ((((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4)) - 0x84
    return np.where(code & 0x80, -size, size) / 2**15


def _a_law(code: Array) -> Array:
    """Return the value of an A-law code by G.711."""
    code = code ^ 0x55
    segment, size = (code & 0x70) >> 4, ((code & 0x0F) << 4) + 8
    size = np.where(segment, (size + 0x100) << np.maximum(segment - 1, 0), size)
    return np.where(code & 0x80, size, -size) / 2**15


def kinds_of_sample() -> Made:
    for width in (1, 2, 3, 4, 8):
        data, stored = whole(noise(width), width)
        yield f"{8 * width}-bit", wav(data, bits=8 * width), heard(stored)
    for width in (4, 8):
        samples = noise(10 + width).astype(f"<f{width}")
        yield (
            f"{8 * width}-bit-float",
            wav(samples.tobytes(), tag=FLOAT, bits=8 * width),
            heard(samples),
        )
    codes = np.random.default_rng(20).integers(0, 256, 4000)
    for tag, name, meaning in ((MU_LAW, "mu-law", _mu_law), (A_LAW, "a-law", _a_law)):
        yield name, wav(codes.astype("u1").tobytes(), tag=tag, bits=8), heard(meaning(codes))
    data, stored = whole(noise(22))
    yield "12-bits-of-16", wav(data, bits=12, align=2), heard(stored)


def channels() -> Made:
    for count in (2, 6, 7, 9, 16):
        data, stored = whole(noise(30 + count, 4000, count))
        yield f"{count}-channels", wav(data, channels=count), heard(stored)
    data, stored = whole(noise(50, 4000, 6))
    weights = np.array([2**-0.5, 2**-0.5, 1, 0, 0.5, 0.5])  # ITU-R BS.775, and no bass
    mix = stored @ weights / weights.sum()
    yield "5.1", extensible(data, 6, _FRONT_5_1), heard(mix)
    data, stored = whole(noise(51, 4000, 2))
    yield "extensible-without-mask", extensible(data, 2, 0), heard(stored)
    yield "0-channels", wav(data, channels=0), Refused("unreadable", "decoding fails at its beg")
    yield "65535-channels", wav(data, channels=65535, align=2), Refused("unreadable", "decoding")


def rates() -> Made:
    for rate, count in ((1, 3), (4000, 1000), (8000, 2000), (11_025, 3000), (44_100, 10_000)):
        data, stored = whole(noise(rate, count))
        yield f"{rate}-hz", wav(data, rate=rate), heard(stored, rate)
    for rate, count in ((96_000, 24_000), (192_000, 40_000)):
        data, stored = whole(noise(rate, count), 3)
        yield f"{rate}-hz", wav(data, rate=rate, bits=24), heard(stored, rate)
    data, _ = whole(noise(60, 11_127))
    yield "11127-hz", wav(data, rate=11_127), Lasts(1.0, 0.0)
    yield "0-hz", wav(data, rate=0), Refused("unreadable", "FFmpeg cannot open it")
    yield (
        "2-ghz",
        wav(data, rate=2**31 - 1),
        Refused("unreadable", "a sample rate of 2147483647 Hz"),
    )
    yield "4-ghz", wav(data, rate=2**32 - 1), Refused("unreadable", "FFmpeg cannot open it")


def loudness() -> Made:
    def floats(samples: Array) -> bytes:
        return wav(samples.astype("<f4").tobytes(), tag=FLOAT, bits=32)

    voice = noise(70)
    tone = np.sin(np.arange(4000) / 3)
    for name, value in (("nan", np.nan), ("infinity", np.inf)):
        yield (
            f"one-{name}",
            floats(np.where(np.arange(4000) == 2000, value, voice)),
            Refused("not-finite", "infinite values or NaN"),
        )
    yield "all-nan", floats(np.full(4000, np.nan)), Refused("not-finite", "infinite values or NaN")
    yield "1e30", floats(voice * 1e30), Refused("too-loud", "5e+29 times full scale")
    yield "scale-of-integers", floats(voice * 32767), heard((voice * 32767).astype("f4"))
    clipped = np.clip(voice * 20, -1, 1)
    data, stored = whole(clipped)
    yield "clipped", wav(data), heard(stored)
    yield "digital-silence", wav(bytes(8000)), Refused("silent", "louder than -80 dBFS")
    yield "offset-alone", wav(whole(np.full(4000, 0.3))[0]), Refused("silent", "louder than -80")
    data, stored = whole(0.3 + voice / 10)
    yield "offset", wav(data), heard(stored)
    yield "below-80-db", floats(tone * 0.9e-4), Refused("silent", "louder than -80 dBFS")
    yield "above-80-db", floats(tone * 1.2e-4), heard(tone * 1.2e-4)


def lengths() -> Made:
    data, stored = whole(noise(80, 400))
    yield "400-samples", wav(data), heard(stored)
    yield "399-samples", wav(data[:-2]), Refused("too-short", "25 ms of audio are shorter than")
    yield "6-ms", wav(data[: 2 * 96]), Refused("too-short", "6 ms of audio")
    yield "1-sample", wav(data[:2]), Refused("silent", "louder than -80 dBFS")
    yield "0-samples", wav(b""), Refused("empty", "has no samples")
    yield "5-minutes", wav(whole(noise(81, 300 * 8000))[0], rate=8000), Lasts(300.0, 0.0)
    yield "2-hours", wav(whole(noise(82, 7200))[0], rate=1), Refused("too-long", "60 minutes")


def headers() -> Made:
    data, stored = whole(noise(90))
    fmt, right = chunk(b"fmt ", form()), heard(stored)
    cut = Refused("unreadable", "it is cut off after")
    no_container = Refused("unreadable", "FFmpeg cannot open it")
    no_decoder = Refused("unreadable", "decoding fails at its beginning")
    yield "streamed-0", wav(data, size=0, data_size=0), right
    yield "streamed-4-gib", wav(data, size=UNKNOWN_SIZE, data_size=UNKNOWN_SIZE), right
    yield "streamed-2-gib", wav(data, data_size=0x7FFFF000), right
    yield "half-a-sample-more", wav(data + b"\1"), right
    yield "block-of-0-bytes", wav(data, align=0), right
    junk = (chunk(b"LIST", b"INFO" + b"abc" * 333), chunk(b"JUNK", bytes(999)))
    yield "chunks-between", riff(junk[0], fmt, junk[1], chunk(b"data", data)), right
    sizes = struct.pack("<QQQI", 72 + len(data), len(data), len(data) // 2, 0)
    rf64 = riff(chunk(b"ds64", sizes), fmt, chunk(b"data", data, UNKNOWN_SIZE), size=UNKNOWN_SIZE)
    yield "rf64", b"RF64" + rf64[4:], right
    yield "rifx", _big_endian(data), Refused("unreadable", "convert it to RIFF")
    yield "cut-in-its-header", wav(data)[:30], cut
    yield "cut-behind-its-header", wav(data)[:44], cut
    yield "cut-in-half", wav(data)[: len(data) // 2], cut
    yield "without-fmt", riff(chunk(b"data", data)), no_container
    yield "without-data", riff(fmt), no_container
    for name, size in ((b"fmt ", 2**31 - 1), (b"LIST", 2**32 - 1)):
        # FFmpeg would allocate the gigabyte that the header of the second chunk gives.
        inner = b"INFOdata" + struct.pack("<I", 2**30)
        yield (
            f"{name.decode().strip()}-beyond-the-file",
            riff(fmt, chunk(name, inner, size), chunk(b"data", data)),
            Refused("unreadable", "a chunk is longer than the file"),
        )
    yield "0-bits", wav(data, bits=0, align=2), no_decoder
    yield "255-bits", wav(data, bits=255, align=2), no_decoder
    yield "unknown-codec", wav(data, tag=0x1234), no_decoder


def _big_endian(data: bytes) -> bytes:
    fmt = struct.pack(">4sIHHIIHH", b"fmt ", 16, PCM, 1, RATE, 2 * RATE, 2, 16)
    sound = np.frombuffer(data, "<i2").astype(">i2").tobytes()
    body = b"WAVE" + fmt + struct.pack(">4sI", b"data", len(sound)) + sound
    return struct.pack(">4sI", b"RIFX", len(body)) + body


def make() -> Made:
    """Yield each name, its bytes, and its expected outcome."""
    for group in (kinds_of_sample, channels, rates, loudness, lengths, headers):
        yield from group()
