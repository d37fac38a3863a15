"""Change the sample rate of a wave by band-limited interpolation."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

_ZEROS = 6  # zero crossings of the sinc on each side
_ROLLOFF = 0.99  # of the Nyquist frequency


def resampled(wave: Tensor, rate: int, new_rate: int) -> Tensor:
    """Return a wave at another sample rate, with the bits of ``torchaudio.functional.resample``.

    Sample j of the result is the sum over i of x[i] h(i / rate - j / new_rate), where h is a sinc
    with its first zeros at 1 / (0.99 · the lower rate), under a Hann window of six zeros on each
    side (J. O. Smith, Digital Audio Resampling Home Page). All sums are one convolution, since
    after a common period of both rates the same coefficients come again.

    Args:
        wave: (samples,) float32.
        rate: its sample rate in Hz.
        new_rate: the sample rate of the result in Hz.

    Returns:
        (⌈samples · new_rate / rate⌉,) float32.
    """
    common = math.gcd(rate, new_rate)
    before, after = rate // common, new_rate // common
    kernels, width = _kernels(before, after)
    padded = F.pad(wave[None], (width, width + before))
    result = F.conv1d(padded[:, None], kernels, stride=before)
    length = int(torch.ceil(torch.as_tensor(after * len(wave) / before)))
    return result.transpose(1, 2).reshape(-1)[:length]


@lru_cache(maxsize=4)  # most corpora have one or two sample rates
def _kernels(before: int, after: int) -> tuple[Tensor, int]:
    """Return the coefficients (after, 1, 2 · width + before) float32, and ``width``.

    ``before`` and ``after`` are the sample rates, without common divisors. The order of the
    operations is that of torchaudio (BSD licence): another order changes the last bits, and so the
    features in older caches.
    """
    base = min(before, after) * _ROLLOFF
    width = math.ceil(_ZEROS * before / base)
    times = torch.arange(-width, width + before, dtype=torch.float32)[None, None] / before
    t = torch.arange(0, -after, -1, dtype=torch.float32)[:, None, None] / after + times
    t *= base
    t = t.clamp_(-_ZEROS, _ZEROS)
    window = torch.cos(t * math.pi / _ZEROS / 2) ** 2
    t *= math.pi
    kernels = torch.where(t == 0, torch.ones(()), t.sin() / t)
    kernels *= window * (base / before)
    return kernels, width
