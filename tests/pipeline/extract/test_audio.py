"""Decoding: one channel at 16 kHz from any container, or the reason of the failure."""

import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mser.pipeline.extract.audio import BadClipError, decode, probe, read_clip

SECONDS = 0.5
TONE = 500.0


def sine(rate: int, amplitude: float = 0.4, seconds: float = SECONDS, tone: float = TONE):
    return (amplitude * np.sin(2 * np.pi * tone * np.arange(int(rate * seconds)) / rate)).astype(
        np.float32
    )


def save(path: Path, channels, rate: int, codec: str, layout: str, **options: str) -> Path:
    """Encode (channels, samples) float32 with FFmpeg; the suffix of ``path`` is the container."""
    channels = np.atleast_2d(np.asarray(channels, dtype=np.float32))
    with av.open(str(path), "w", options=options) as container:
        stream: Any = container.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(channels, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return path


def save_pcm(path: Path, channels, rate: int, width: int) -> Path:
    """Write integer PCM of ``width`` bytes a sample with the standard library alone."""
    samples = np.atleast_2d(channels).T
    if width == 1:
        content = np.round(samples * 127 + 128).astype(np.uint8).tobytes()
    else:
        whole = np.round(samples * (2 ** (8 * width - 1) - 1)).astype("<i4")
        content = whole[..., None].view(np.uint8)[..., :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(content)
    return path


def decoded(path: Path):
    result = decode(read_clip(path))
    assert result.dtype == np.float32
    assert result.ndim == 1
    return result


def frequency(signal) -> float:
    spectrum = np.abs(np.fft.rfft(signal * np.hanning(len(signal)), 1 << 17))
    return float(np.argmax(spectrum)) * 16_000 / (1 << 17)


def peak(signal) -> float:
    """The amplitude without the ends, where the filters have not settled."""
    return float(np.abs(signal[400:-400]).max())


def refusal(content: bytes) -> BadClipError:
    with pytest.raises(BadClipError) as caught:
        decode(content)
    assert str(caught.value) == f"{caught.value.reason}: {caught.value.detail}"
    return caught.value


@pytest.mark.parametrize("rate", [8_000, 11_127, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_integer_wav_keeps_length_pitch_and_amplitude(tmp_path, rate, width):
    path = save_pcm(tmp_path / "clip.wav", sine(rate), rate, width)
    result = decoded(path)
    assert abs(len(result) - SECONDS * 16_000) <= 1
    assert frequency(result) == pytest.approx(TONE, abs=2)
    assert peak(result) == pytest.approx(0.4, abs=0.012 if width == 1 else 0.003)
    assert probe(read_clip(path)) == pytest.approx(SECONDS, abs=1e-3)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_float_wav_keeps_length_pitch_and_amplitude(tmp_path, rate):
    result = decoded(save(tmp_path / "clip.wav", sine(rate), rate, "pcm_f32le", "mono"))
    assert abs(len(result) - SECONDS * 16_000) <= 1
    assert frequency(result) == pytest.approx(TONE, abs=2)
    assert peak(result) == pytest.approx(0.4, abs=0.003)


def test_mono_at_16_khz_is_not_changed(tmp_path):
    noise = np.random.default_rng(0).uniform(-1, 1, 5000).astype(np.float32)
    floats = save(tmp_path / "float.wav", noise, 16_000, "pcm_f32le", "mono")
    np.testing.assert_array_equal(decoded(floats), noise)
    integers = save_pcm(tmp_path / "integer.wav", noise, 16_000, 2)
    expected = np.round(noise * 32767).astype(np.float32) / 32768
    np.testing.assert_array_equal(decoded(integers), expected)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_lossless_containers_agree(tmp_path, suffix, layout):
    channels = np.stack([sine(48_000)] * (2 if layout == "stereo" else 1))
    codec = {"wav": "pcm_s16le", "flac": "flac"}[suffix]
    result = decoded(save(tmp_path / f"clip.{suffix}", channels, 48_000, codec, layout))
    assert len(result) == SECONDS * 16_000
    assert frequency(result) == pytest.approx(TONE, abs=2)


@pytest.mark.parametrize(("layout", "count"), [("mono", 1), ("stereo", 2), ("5.1", 6)])
def test_aac_in_mp4_keeps_length_and_pitch(tmp_path, layout, count):
    channels = np.stack([sine(48_000)] * count)
    path = save(tmp_path / "clip.mp4", channels, 48_000, "aac", layout)
    result = decoded(path)
    # One frame of AAC is 1024 samples at 48 kHz.
    assert abs(len(result) - SECONDS * 16_000) <= 1024 / 3 + 1
    assert frequency(result) == pytest.approx(TONE, abs=2)
    assert probe(read_clip(path)) == pytest.approx(SECONDS, abs=1024 / 48_000)


@pytest.mark.parametrize("codec", ["pcm_f32le", "pcm_s16le"])
def test_stereo_becomes_the_mean_of_its_channels(tmp_path, codec):
    rng = np.random.default_rng(1)
    left, right = rng.uniform(-0.9, 0.9, (2, 8000)).astype(np.float32)
    path = save(tmp_path / "clip.wav", [left, right], 16_000, codec, "stereo")
    np.testing.assert_allclose(decoded(path), (left + right) / 2, atol=2e-4)


def test_a_voice_is_as_loud_in_stereo_as_in_mono(tmp_path):
    voice = sine(16_000, amplitude=0.9)
    mono = decoded(save(tmp_path / "mono.wav", voice, 16_000, "pcm_s16le", "mono"))
    stereo = decoded(save(tmp_path / "stereo.wav", [voice] * 2, 16_000, "pcm_s16le", "stereo"))
    np.testing.assert_allclose(stereo, mono, atol=2e-4)


def test_the_centre_of_surround_sound_is_kept(tmp_path):
    channels = np.zeros((6, 24_000), dtype=np.float32)
    channels[2] = sine(48_000)  # the channel of the dialogue in 5.1
    result = decoded(save(tmp_path / "clip.wav", channels, 48_000, "pcm_s16le", "5.1"))
    assert frequency(result) == pytest.approx(TONE, abs=2)
    assert peak(result) > 0.05


def test_surround_sound_does_not_exceed_full_scale(tmp_path):
    channels = np.stack([sine(16_000, amplitude=0.9)] * 6)
    result = decoded(save(tmp_path / "clip.wav", channels, 16_000, "pcm_s16le", "5.1"))
    assert np.abs(result).max() <= 1


def test_frequencies_above_8_khz_are_filtered_out(tmp_path):
    high = sine(48_000, tone=11_000)  # would alias to 5 kHz
    low = sine(48_000, amplitude=0.1)
    result = decoded(save(tmp_path / "clip.wav", high + low, 48_000, "pcm_f32le", "mono"))
    spectrum = np.abs(np.fft.rfft(result * np.hanning(len(result))))
    folded = spectrum[len(spectrum) * 5 // 8 - 20 : len(spectrum) * 5 // 8 + 20].max()
    assert folded < 0.05 * spectrum.max()  # of a tone four times as loud


@pytest.mark.parametrize(
    "name", ["Zoë – « hé ».wav", "two words.wav", "two\nlines.wav", "%41#?.wav"]
)
def test_odd_names(tmp_path, name):
    assert len(decoded(save_pcm(tmp_path / name, sine(16_000), 16_000, 2))) == 8000


def test_no_such_file(tmp_path):
    with pytest.raises(BadClipError, match=r"the file .*nothing\.wav does not exist") as caught:
        read_clip(tmp_path / "nothing.wav")
    assert caught.value.reason == "absent"


def test_an_empty_file(tmp_path):
    (tmp_path / "clip.wav").touch()
    with pytest.raises(BadClipError, match=r"clip\.wav is an empty file") as caught:
        read_clip(tmp_path / "clip.wav")
    assert caught.value.reason == "empty"


def test_a_folder(tmp_path):
    (tmp_path / "clip.wav").mkdir()
    with pytest.raises(BadClipError, match=r"clip\.wav is a folder, not a file") as caught:
        read_clip(tmp_path / "clip.wav")
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("read", [decode, probe])
@pytest.mark.parametrize(
    "content", [b"This is a text, not a clip.\n" * 40, bytes(range(256)) * 20, b"RIFF"]
)
def test_a_file_that_is_not_a_clip(read, content):
    with pytest.raises(BadClipError) as caught:
        read(content)
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}])
@pytest.mark.parametrize("part", [0.4, 0.8])
def test_a_truncated_mp4(tmp_path, options, part):
    noise = np.random.default_rng(2).uniform(-0.5, 0.5, (2, 48_000))
    content = save(tmp_path / "clip.mp4", noise, 48_000, "aac", "stereo", **options).read_bytes()
    assert len(decode(content)) > 15_000
    assert refusal(content[: int(len(content) * part)]).reason == "unreadable"


def test_an_mp4_that_is_corrupt_in_the_middle(tmp_path):
    noise = np.random.default_rng(3).uniform(-0.5, 0.5, (2, 96_000))
    content = bytearray(save(tmp_path / "clip.mp4", noise, 48_000, "aac", "stereo").read_bytes())
    middle = (content.find(b"mdat") + content.find(b"moov")) // 2
    content[middle : middle + 2000] = b"\xff" * 2000
    error = refusal(bytes(content))
    assert error.reason == "unreadable"
    assert "decoding stops after" in error.detail


def test_a_truncated_wav(tmp_path):
    content = save_pcm(tmp_path / "clip.wav", sine(16_000), 16_000, 2).read_bytes()
    assert refusal(content[: len(content) // 2]).reason == "unreadable"


def test_a_video_without_sound(tmp_path):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    content = read_clip(path)
    assert refusal(content).reason == "no-audio"
    with pytest.raises(BadClipError, match="no-audio"):
        probe(content)


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_silence_and_a_constant(tmp_path, level):
    path = save_pcm(tmp_path / "clip.wav", np.full(8000, level), 16_000, 2)
    assert refusal(path.read_bytes()).reason == "silent"


def test_a_quiet_voice_is_not_silence(tmp_path):
    path = save_pcm(tmp_path / "clip.wav", sine(16_000, amplitude=1e-3), 16_000, 2)
    assert peak(decoded(path)) == pytest.approx(1e-3, abs=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_nan_and_infinite_samples(tmp_path, value, channels):
    signal = np.stack([sine(16_000)] * channels)
    signal[0, 3000] = value
    layout = "mono" if channels == 1 else "stereo"
    path = save(tmp_path / "clip.wav", signal, 16_000, "pcm_f32le", layout)
    assert refusal(path.read_bytes()).reason == "not-finite"


def test_a_wav_without_samples(tmp_path):
    path = save_pcm(tmp_path / "clip.wav", np.zeros((1, 0)), 16_000, 2)
    assert refusal(path.read_bytes()).reason in ("empty", "unreadable")
