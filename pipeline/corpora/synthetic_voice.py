"""The voice of the synthetic corpus: a small source-filter synthesizer of unintelligible words.

Formants that follow the spelling of the sentence filter a glottal pulse train and noise. A clip
therefore has the syllables, pauses, pitch contour and spectrum of speech, but no listener would
understand it. Vowel formants are the men's averages of Hillenbrand et al. (1995), rounded;
consonants have textbook loci and noise bands. The acoustic correlates of the emotions follow the
directions that Scherer (2003) and Juslin & Laukka (2003) report; they are not measurements.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.signal import istft, stft

RATE = 16_000
"""Sampling rate of every clip in Hz."""

Signal = NDArray[np.float64]

_WINDOW, _HOP = 256, 128
_SHORTEST, _LONGEST = 1.05, 2.95  # seconds
_FLOOR_DB = -62.0  # room noise, relative to full scale


@dataclass(frozen=True, slots=True)
class Speaker:
    """A voice: the properties that all utterances of a speaker share."""

    f0: float
    """Pitch of neutral speech in Hz."""
    tract: float
    """Factor on the formants of an average man; larger for a shorter vocal tract."""
    tempo: float
    """Factor on the speaking rate."""
    level: float
    """Loudness in dB, added to that of each utterance."""
    spread: float
    """Factor on the random variation from utterance to utterance; 1 is average."""


class Delivery(NamedTuple):
    """The prosody of one utterance."""

    pitch: float
    """Semitones above the speaker's ``f0``."""
    span: float
    """Height of a pitch accent in semitones."""
    level: float
    """RMS of the clip in dB relative to full scale."""
    tempo: float
    """Factor on the speaking rate."""
    tilt: float
    """Spectral tilt in dB per octave; negative is a darker spectrum."""


_NEUTRAL = np.array([0.0, 4.0, -26.0, 1.0, 0.0])
_TOWARD = {
    "angry": np.array([3.5, 2.5, 6.5, 0.20, 2.2]),
    "happy": np.array([5.5, 5.5, 2.5, 0.12, 0.6]),
    "neutral": np.zeros(5),
    "sad": np.array([-2.5, -2.4, -5.5, -0.22, -2.2]),
}
_DEVIATION = np.array([1.0, 0.9, 1.5, 0.06, 0.6])  # standard deviations, average speaker
_LOWEST = np.array([-6.0, 0.6, -38.0, 0.6, -5.0])
_HIGHEST = np.array([12.0, 14.0, -16.0, 1.5, 5.0])


def deliver(emotion: str, strength: float, speaker: Speaker, rng: np.random.Generator) -> Delivery:
    """Draw the prosody of an utterance in ``emotion``: ``strength`` 0 is neutral, 1 typical."""
    variation = _DEVIATION * speaker.spread * rng.standard_normal(5)
    drawn = np.clip(_NEUTRAL + strength * _TOWARD[emotion] + variation, _LOWEST, _HIGHEST)
    return Delivery(*drawn.tolist())


class _Segment(NamedTuple):
    seconds: float
    formants: tuple[int, int, int]  # Hz
    voice: float = 0.0  # amplitude of the pulse train
    noise: float = 0.0  # amplitude of the noise
    centre: int = 3000  # of the noise band in Hz
    accent: bool = False


_LIPS, _RIDGE, _VELUM = (350, 900, 2300), (350, 1750, 2600), (350, 1900, 2300)


def _vowel(*formants: int, seconds: float = 0.075) -> list[_Segment]:
    return [_Segment(seconds, (formants[0], formants[1], formants[2]), voice=1.0)]


def _stop(place: tuple[int, int, int], voice: float, noise: float, hz: int) -> list[_Segment]:
    return [_Segment(0.03, place, voice), _Segment(0.015, place, voice, noise, hz)]


def _hiss(place: tuple[int, int, int], voice: float, noise: float, hz: int) -> list[_Segment]:
    return [_Segment(0.05, place, voice, noise, hz)]


def _hum(*formants: int, voice: float) -> list[_Segment]:
    return [_Segment(0.04, (formants[0], formants[1], formants[2]), voice)]


_I, _IH, _EH, _AE = (_vowel(340, 2320, 3000), _vowel(430, 2030, 2680, seconds=0.055),
                     _vowel(580, 1800, 2600), _vowel(590, 1950, 2600))  # fmt: skip
_EY, _AA, _AO, _OW = (_vowel(480, 2090, 2690), _vowel(770, 1330, 2520), _vowel(650, 1000, 2540),
                      _vowel(500, 910, 2460))  # fmt: skip
_UH, _UW, _AH, _ER = (_vowel(470, 1120, 2430, seconds=0.055), _vowel(380, 1000, 2340),
                      _vowel(620, 1200, 2550, seconds=0.055), _vowel(470, 1380, 1710))  # fmt: skip

_VOWELS = {
    "a": _AE, "e": _EH, "i": _IH, "o": _AA, "u": _AH, "y": _I, "ee": _I, "ea": _I, "ie": _I,
    "ai": _EY, "ay": _EY, "ey": _EY, "oa": _OW, "ow": _OW, "oo": _UW, "ou": _UH, "ew": _UW,
    "au": _AO, "aw": _AO, "al": _AO, "er": _ER, "ir": _ER, "ur": _ER, "or": _AO, "ar": _AA,
    "oi": _AO + _I, "oy": _AO + _I, "igh": _AA + _I,
}  # fmt: skip
_CONSONANTS = {
    "p": _stop(_LIPS, 0.0, 0.25, 1000), "b": _stop(_LIPS, 0.15, 0.10, 1000),
    "t": _stop(_RIDGE, 0.0, 0.40, 4200), "d": _stop(_RIDGE, 0.15, 0.15, 4000),
    "k": _stop(_VELUM, 0.0, 0.35, 2100), "g": _stop(_VELUM, 0.15, 0.12, 2000),
    "f": _hiss(_LIPS, 0.0, 0.12, 6000), "v": _hiss(_LIPS, 0.30, 0.05, 6000),
    "th": _hiss(_RIDGE, 0.15, 0.08, 6500), "h": _hiss(_RIDGE, 0.0, 0.15, 1600),
    "s": _hiss(_RIDGE, 0.0, 0.40, 5800), "z": _hiss(_RIDGE, 0.20, 0.25, 5800),
    "sh": _hiss(_RIDGE, 0.0, 0.40, 3300), "ch": _stop(_RIDGE, 0.0, 0.45, 3300) * 2,
    "m": _hum(250, 1000, 2200, voice=0.5), "n": _hum(250, 1600, 2400, voice=0.5),
    "ng": _hum(250, 2000, 2500, voice=0.5), "l": _hum(360, 1100, 2600, voice=0.7),
    "r": _hum(400, 1200, 1600, voice=0.7), "w": _hum(320, 700, 2200, voice=0.6),
}  # fmt: skip
_SAME = {"c": "k", "ck": "k", "q": "k", "x": "s", "j": "ch", "ph": "f", "wh": "w"}
_SOUNDS = _VOWELS | _CONSONANTS | {other: _CONSONANTS[name] for other, name in _SAME.items()}
_SPELLING = re.compile("|".join(sorted(_SOUNDS, key=len, reverse=True)))


def _segments(text: str) -> list[_Segment]:
    """Return the sounds of the words; the first vowel of each longer word has a pitch accent."""
    segments: list[_Segment] = []
    for word in re.findall(r"[a-z]+", text.lower()):
        # A final e after a vowel and a consonant is silent; a doubled consonant is one sound.
        spoken = re.sub(r"(?<=[aeiou][b-df-hj-np-tv-z])e$", "", word)
        spoken = re.sub(r"([b-df-hj-np-tv-z])\1", r"\1", spoken)
        accented = len(word) < 4
        for sound in _SPELLING.findall(spoken):
            spelled = _SOUNDS[sound]
            if sound in _VOWELS and not accented:
                first, *rest = spelled
                spelled = [first._replace(accent=True, seconds=1.25 * first.seconds), *rest]
                accented = True
            segments += spelled
    return segments


def _pitch(times: Signal, accents: Signal, delivery: Delivery, rng: np.random.Generator) -> Signal:
    """Return semitones above the speaker's pitch: declination, accents and a slow wander."""
    heights = delivery.span * rng.uniform(0.6, 1.2, len(accents))
    bumps = heights * np.exp(-0.5 * ((times[:, None] - accents) / 0.07) ** 2)
    decline = delivery.span * (0.4 - 0.8 * times / times[-1])
    wander = uniform_filter1d(rng.standard_normal(len(times)), 15)
    return np.asarray(delivery.pitch + bumps.sum(axis=1) + decline + wander)


def _pulses(f0: Signal, rng: np.random.Generator) -> Signal:
    """Return the derivative of the glottal flow of Klatt & Klatt (1990) along ``f0`` in Hz."""
    cycles = np.cumsum(f0 / RATE)
    jitter = 1 + 0.012 * rng.standard_normal(int(cycles[-1]) + 1)
    cycles = np.cumsum(f0 * jitter[cycles.astype(np.intp)] / RATE)
    nth = cycles.astype(np.intp)
    shimmer = 1 + 0.06 * rng.standard_normal(int(nth[-1]) + 1)
    opened = (cycles - nth) / 0.6  # closed for the rest of a period
    return np.where(opened < 1, opened * (2 - 3 * opened), 0) * shimmer[nth]


def _damp(formants: Signal, tilt: float, hz: Signal) -> NDArray[np.complex128]:
    """Return the divisor of a spectrum that applies a cascade of resonances and a tilt.

    ``formants`` (frames, resonances) is in Hz; ``tilt`` is in dB per octave above 300 Hz; ``hz``
    (bins,) are the frequencies. The result is (bins, frames).
    """
    damping = np.ones((len(hz), len(formants)), np.complex128)
    damping /= np.maximum(hz / 300, 1)[:, None] ** (tilt / 6.02)
    for centre in formants.T:
        width = 50 + 0.05 * centre
        damping *= 1 - np.outer(hz**2, centre**-2) + 1j * np.outer(hz, width / centre**2)
    return damping


def speak(
    text: str, speaker: Speaker, delivery: Delivery, rng: np.random.Generator
) -> NDArray[np.int16]:
    """Return a mono clip of int16 samples at ``RATE``, one to three seconds long.

    The same arguments and the same state of ``rng`` give the same samples. ``text`` must contain at
    least one letter from a to z.
    """
    sounds = _segments(text)
    silence = _Segment(0.1, (500, 1500, 2500))
    seconds = np.array([part.seconds for part in sounds]) / (delivery.tempo * speaker.tempo)
    seconds *= rng.uniform(0.85, 1.15, len(seconds))
    seconds[-3:] *= 1.25  # speech slows down at the end of a phrase
    seconds *= np.clip(seconds.sum(), _SHORTEST - 0.2, _LONGEST - 0.2) / seconds.sum()
    seconds = np.concatenate([[0.1], seconds, [0.1]])
    parts = [silence, *sounds, silence]

    starts = np.concatenate([[0], np.cumsum(seconds)])
    edges = np.round(starts * RATE).astype(np.intp)
    which = np.searchsorted(edges, np.arange(edges[-1]), side="right") - 1
    middles = (starts[:-1] + starts[1:]) / 2
    accents = middles[np.array([part.accent for part in parts])]
    samples = np.arange(len(which))
    frames = samples[::_HOP]

    semitones = _pitch(frames / RATE, accents, delivery, rng)
    f0 = np.interp(samples, frames, speaker.f0 * 2 ** (semitones / 12))
    voice = uniform_filter1d(np.array([part.voice for part in parts])[which], RATE // 50)
    noise = uniform_filter1d(np.array([part.noise for part in parts])[which], RATE // 100)
    # An accent is also louder, by about a quarter at most.
    stress = np.interp(samples, frames, 1 + 0.04 * np.clip(semitones - delivery.pitch, -6, 8))
    hiss = rng.standard_normal(len(which))
    voiced = voice * stress * (_pulses(f0, rng) + 0.004 * hiss)

    hz, _, vowels = stft(voiced, RATE, nperseg=_WINDOW, noverlap=_WINDOW - _HOP)
    _, _, fricatives = stft(noise * hiss, RATE, nperseg=_WINDOW, noverlap=_WINDOW - _HOP)
    part_of_frame = which[np.minimum(np.arange(vowels.shape[1]) * _HOP, len(which) - 1)]
    formants = np.array([(*part.formants, 3500, 4500) for part in parts], np.float64)[part_of_frame]
    formants = uniform_filter1d(formants, 5, axis=0) * speaker.tract
    centres = np.array([part.centre for part in parts], np.float64)[part_of_frame]
    vowels /= _damp(formants, delivery.tilt, hz)
    fricatives *= 0.2 * np.exp(-0.5 * ((hz[:, None] - centres) / 900) ** 2)
    _, mixed = istft(vowels + fricatives, RATE, nperseg=_WINDOW, noverlap=_WINDOW - _HOP)

    clip = mixed[: len(which)]
    clip *= 10 ** ((delivery.level + speaker.level) / 20) / np.sqrt(np.mean(clip**2))
    clip += 10 ** (_FLOOR_DB / 20) * rng.standard_normal(len(clip))
    clip *= min(1.0, 0.95 / np.abs(clip).max())
    return np.asarray(np.round(clip * 32767), dtype=np.int16)
