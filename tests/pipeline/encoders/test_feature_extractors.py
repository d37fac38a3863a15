"""Features without weights: their values, alone and in a batch, and their identity."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mser
from mser.pipeline.errors import PipelineError, UsageError

RATE = 16_000


def waves(*samples: int) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    random = np.random.default_rng(0)
    return [random.standard_normal(n).astype(np.float32) * 0.1 for n in samples]


def mel(frequency: float) -> float:
    return float(2595 * np.log10(1 + frequency / 700))


def log_mel(
    wave: np.ndarray[Any, Any], bands: int, window: int, hop: int, low: float, high: float
) -> np.ndarray[Any, Any]:
    """The formula, in float64: triangles whose corners are evenly spaced in mel."""
    size = 2 ** int(np.ceil(np.log2(window)))
    corners = 700 * (10 ** (np.linspace(mel(low), mel(high), bands + 2) / 2595) - 1)
    bins = np.arange(size // 2 + 1) * RATE / size
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    rows = []
    for start in range(0, len(wave) - window + 1, hop):
        power = np.abs(np.fft.rfft(wave[start : start + window] * hann, size)) ** 2
        row = []
        for left, top, right in zip(corners, corners[1:], corners[2:], strict=False):
            rising, falling = (bins - left) / (top - left), (right - bins) / (right - top)
            row.append((power * np.clip(np.minimum(rising, falling), 0, None)).sum())
        rows.append(np.log(np.maximum(row, 1e-10)))
    return np.array(rows)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("log-mel", (80, 400, 160, 20, 8000)),
        ("log-mel(n_mels=23,frame_ms=32,hop_ms=16,f_min=0,f_max=4000)", (23, 512, 256, 0, 4000)),
    ],
)
def test_log_mel_is_the_formula(name: str, form: tuple[int, int, int, float, float]) -> None:
    wave = waves(5000)[0]
    (states,) = mser.load_encoder(name).encode([wave])
    np.testing.assert_allclose(states[0], log_mel(wave, *form), rtol=1e-4, atol=1e-4)


def test_log_mel_of_a_batch_is_that_of_each_wave() -> None:
    given = waves(5000, 400, 9000, 5000, 399)
    encoder = mser.load_encoder("log-mel")
    for padded in (False, True):  # as on a CPU, and as on a GPU
        encoder.padded = padded
        together = encoder.encode(given)
        assert [states.shape for states in together] == [
            (1, max(0, (len(wave) - 400) // 160 + 1), 80) for wave in given
        ]
        for wave, states in zip(given, together, strict=True):
            np.testing.assert_array_equal(states, encoder.encode([wave])[0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("log-mel(n_mels=0)", "n_mels=0"),
        ("log-mel(f_max=9000)", "from 20 to 9000 Hz: give frequencies between 0 and 8000"),
        ("log-mel(n_mel=40)", "did you mean 'n_mels'"),
        ("log-mel(40)", "write '40' as key=value"),
    ],
)
def test_a_wrong_parameter_is_one_sentence(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        mser.load_encoder(name)


def test_an_extractor_has_one_layer() -> None:
    assert mser.load_encoder("log-mel", layers="last").layers == (0,)
    with pytest.raises(UsageError, match="layers 0 to 0"):
        mser.load_encoder("log-mel", layers="9")
    with pytest.raises(UsageError, match="is a speech encoder"):
        mser.load_encoder("log-mel", modality="text")


def test_a_folder_of_the_same_name_does_not_hide_an_extractor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log-mel").mkdir()
    (tmp_path / "log-mel(n_mels=23)").mkdir()
    (tmp_path / "wav2vec2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert mser.load_encoder("log-mel").dim == 80
    assert mser.load_encoder("log-mel(n_mels=23)").dim == 23
    for folder in ("./log-mel", str(tmp_path / "log-mel"), "wav2vec2"):
        with pytest.raises(UsageError, match=r"the folder has no config\.json"):
            mser.load_encoder(folder)


def test_features_of_a_wrong_shape_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder: Any = mser.load_encoder("log-mel")
    encoder.extractor.extract = lambda wave: np.zeros((3, 7))
    with pytest.raises(PipelineError, match=r"shape \(3, 7\): return \(frames, 80\)"):
        encoder.encode(waves(800))


def test_egemaps_is_that_of_opensmile() -> None:
    opensmile = pytest.importorskip("opensmile")
    time = np.arange(RATE) / RATE
    wave = (0.3 * np.sin(2 * np.pi * 120 * time) * (1 + 0.2 * np.sin(9 * time))).astype(np.float32)
    levels = opensmile.FeatureLevel
    for name, level, width in (
        ("egemaps", levels.Functionals, 88),
        ("egemaps(level=lld)", levels.LowLevelDescriptors, 25),
    ):
        encoder = mser.load_encoder(name)
        smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, level)
        expected = smile.process_signal(wave, RATE).to_numpy()
        assert expected.shape[1] == encoder.dim == width
        together = encoder.encode([wave, wave[:9000]])
        np.testing.assert_allclose(together[0][0], expected, rtol=1e-6)
        assert encoder.identity["opensmile"] == opensmile.__version__


def test_egemaps_without_opensmile_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise mser.pipeline.encoders.egemaps.PackageNotFoundError(name)

    monkeypatch.setattr("mser.pipeline.encoders.egemaps.version", missing)
    with pytest.raises(UsageError, match=r"pip install 'mser\[opensmile\]'"):
        mser.load_encoder("egemaps")
