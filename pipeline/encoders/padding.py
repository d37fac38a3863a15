"""Keep padding out of the features of a batch where the attention mask of the model does not.

wav2vec2 and similar models normalise over time in their first convolution
(``feat_extract_norm="group"``), so padding would change every feature of an utterance. Here each
row of a batch has its own statistics. Some models also run several convolutions over positions; the
second one must see zeros after the end of an utterance, as it does without padding.
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
    """Make the length of each row, in samples without padding, known to the modules below.

    If all rows of a batch have the same length there is no padding.
    """
    token = _samples.set(samples if min(samples) < longest else None)
    try:
        yield
    finally:
        _samples.reset(token)


class RowwiseNorm(nn.Module):
    """A normalisation over time that ignores the padding of each row.

    ``frames_of`` returns the number of frames for a number of samples.
    """

    def __init__(self, norm: nn.Module, frames_of: Callable[[int], int]) -> None:
        super().__init__()
        self.norm = norm
        self.frames_of = frames_of

    def forward(self, frames: Tensor) -> Tensor:
        """Normalise (batch, channels, frames); padding becomes zero."""
        samples = _samples.get()
        if samples is None:
            return self.norm(frames)  # type: ignore[no-any-return]
        rows = []
        for row, length in zip(frames, map(self.frames_of, samples), strict=True):
            normalised = self.norm(row[None, :, :length])
            rows.append(F.pad(normalised, (0, frames.shape[-1] - length)))
        return torch.cat(rows)


def silence_padding(module: nn.Module, frames_of: Callable[[int], int]) -> None:
    """Set the padding in a module's output (batch, channels, frames) to zero."""

    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor | None:
        samples = _samples.get()
        if samples is None:
            return None
        ends = torch.tensor([frames_of(length) for length in samples], device=output.device)
        positions = torch.arange(output.shape[-1], device=output.device)
        return output * (positions < ends[:, None])[:, None]

    module.register_forward_hook(hook)
