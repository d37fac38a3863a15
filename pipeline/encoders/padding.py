"""What keeps padding out of a batch's features, where a model's own attention mask does not.

A wav2vec2-like model normalises over time in its first convolution (``feat_extract_norm="group"``),
so that padding would change every feature of an utterance. Here each row of a batch has statistics
of its own. Some models also run several convolutions over positions, of which only the first sees
zeros behind an utterance's end, as it would if there were no padding.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_samples: ContextVar[Sequence[int] | None] = ContextVar("_samples", default=None)


@contextmanager
def lengths_known(samples: Sequence[int], longest: int) -> Iterator[None]:
    """Tell the modules below how many samples each row of a batch has without its padding.

    In a batch of rows that are all as long as the longest there is nothing to keep out.
    """
    token = _samples.set(samples if min(samples) < longest else None)
    try:
        yield
    finally:
        _samples.reset(token)


class RowwiseNorm(nn.Module):
    """A normalisation over time that sees of each row only what is not padding.

    ``frames_of`` tells how many of its frames come from so many samples.
    """

    def __init__(self, norm: nn.Module, frames_of: Callable[[int], int]) -> None:
        super().__init__()
        self.norm = norm
        self.frames_of = frames_of

    def forward(self, frames: Tensor) -> Tensor:
        """Normalise (batch, channels, frames); what is padding becomes zero."""
        samples = _samples.get()
        if samples is None:
            return self.norm(frames)  # type: ignore[no-any-return]
        rows = []
        for row, length in zip(frames, map(self.frames_of, samples), strict=True):
            normalised = self.norm(row[None, :, :length])
            rows.append(F.pad(normalised, (0, frames.shape[-1] - length)))
        return torch.cat(rows)


def silence_padding(module: nn.Module, frames_of: Callable[[int], int]) -> None:
    """Have a module's output (batch, channels, frames) be zero where there is padding."""

    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor | None:
        samples = _samples.get()
        if samples is None:
            return None
        ends = torch.tensor([frames_of(one) for one in samples], device=output.device)
        positions = torch.arange(output.shape[-1], device=output.device)
        return output * (positions < ends[:, None])[:, None]

    module.register_forward_hook(hook)
