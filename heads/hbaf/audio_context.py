"""The audio context network of HBAF: what is said before and after enters the low-level audio.

Recurrent networks over packed sequences, so that no step ever reads padding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from ..errors import require
from ..modules.pooling import AttentionPooling


class BiGRU(nn.Module):
    """One bidirectional GRU layer (Cho et al., 2014), half the width for each direction.

    Args:
        width: W, of input and output; even.

    Raises:
        HeadError: an odd width.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        message = f"width must be even and at least 2 for a bidirectional GRU, not {width}"
        require(width >= 2 and width % 2 == 0, message)
        self.gru = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Read padded sequences forwards and backwards.

        Args:
            x: (B, T, W) floating; the padding is not read.
            lengths: (B,) int64 in 0 .. T; best on the CPU, where packing wants them.

        Returns:
            (B, T, W); zeros in the padding, and for a sequence of length 0.
        """
        lengths = lengths.cpu()
        # Packing refuses empty sequences: they are read as one of length 1, which is then dropped.
        packed = pack_padded_sequence(
            x, lengths.clamp(min=1), batch_first=True, enforce_sorted=False
        )
        out, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=x.shape[1])
        return torch.where((lengths > 0).to(x.device)[:, None, None], out, 0.0)


class AudioContextNetwork(nn.Module):
    """Frames to utterance vectors that know their dialogue [interpretation].

    x_i = AttentionPooling(BiGRU_frames(frames of i)), and over the utterances of a dialogue
    c_i = LN(x_i + BiGRU_dialogue(x)_i). An utterance without frames is x_i = 0 to its neighbours.

    Args:
        width: W, even.

    Raises:
        HeadError: an odd width.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frames = BiGRU(width)
        self.pooling = AttentionPooling(width)
        self.dialogue = BiGRU(width)
        self.norm = nn.LayerNorm(width)

    def forward(self, frames: Tensor, mask: Tensor, lengths: Tensor, sizes: Tensor) -> Tensor:
        """Return c: (B, W).

        Args:
            frames: (B, T, W) floating, finite in the padding too.
            mask: (B, T) bool, True where a frame is valid.
            lengths: (B,) int64, the frames of each utterance; what ``mask`` says.
            sizes: (G,) int64, the utterances of each dialogue; they stand together in the batch.
        """
        x = self.pooling(self.frames(frames, lengths), mask)
        said = self.dialogue(by_dialogue(x, sizes.tolist()), sizes)
        context: Tensor = self.norm(x + by_utterance(said, sizes.tolist()))
        return context


def by_dialogue(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Utterances (B, …) to padded dialogues (G, N, …), zeros (False) in the padding."""
    return pad_sequence(list(torch.split(x, list(sizes))), batch_first=True)


def by_utterance(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Padded dialogues (G, N, …) back to utterances (B, …) without the padding."""
    return torch.cat([dialogue[:size] for dialogue, size in zip(x, sizes, strict=True)])
