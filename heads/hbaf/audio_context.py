"""The audio context network of HBAF: adds the context of the dialogue to the low-level audio.

The recurrent networks run over packed sequences, so that no step reads padding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from ..errors import require
from ..modules.pooling import AttentionPooling


class BiGRU(nn.Module):
    """One bidirectional GRU layer (Cho et al., 2014); each direction has half of the width.

    Args:
        width: W, the width of input and output; even.

    Raises:
        HeadError: the width is odd.
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
            lengths: (B,) int64 in 0 .. T, preferably on the CPU, where packing needs them.

        Returns:
            (B, T, W); zeros in the padding and for a sequence of length 0.
        """
        lengths = lengths.cpu()
        # Packing does not accept empty sequences: give them length 1, and drop the result below.
        packed = pack_padded_sequence(
            x, lengths.clamp(min=1), batch_first=True, enforce_sorted=False
        )
        out, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=x.shape[1])
        return torch.where((lengths > 0).to(x.device)[:, None, None], out, 0.0)


class AudioContextNetwork(nn.Module):
    """Frames to utterance vectors with the context of their dialogue [interpretation].

    x_i = AttentionPooling(BiGRU_frames(frames of i)), and over the utterances of a dialogue
    c_i = LN(x_i + BiGRU_dialogue(x)_i). For an utterance without frames, x_i = 0.

    Args:
        width: W, the width of frames and utterances; even.

    Raises:
        HeadError: the width is odd.
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
            lengths: (B,) int64, the number of frames of each utterance; must agree with ``mask``.
            sizes: (G,) int64, the number of utterances of each dialogue; the utterances of a
                dialogue are adjacent in the batch.
        """
        x = self.pooling(self.frames(frames, lengths), mask)
        context = self.dialogue(by_dialogue(x, sizes.tolist()), sizes)
        in_context: Tensor = self.norm(x + by_utterance(context, sizes.tolist()))
        return in_context


def by_dialogue(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Utterances (B, …) to padded dialogues (G, N, …), with zeros (False) in the padding."""
    return pad_sequence(list(torch.split(x, list(sizes))), batch_first=True)


def by_utterance(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Padded dialogues (G, N, …) back to utterances (B, …) without the padding."""
    return torch.cat([dialogue[:size] for dialogue, size in zip(x, sizes, strict=True)])
