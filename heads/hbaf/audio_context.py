"""The audio context network of HBAF: adds the context of the dialogue to the low-level audio."""

from torch import Tensor, nn

from ..dialogues import Dialogues
from ..modules.pooling import AttentionPooling
from .turn_context import BiGRU, in_context


class AudioContextNetwork(nn.Module):
    """Frames to utterance vectors with the context of their dialogue [interpretation].

    x_i = AttentionPooling(BiGRU_frames(frames of i)), then :func:`in_context` over the utterances.
    For an utterance without frames, x_i = 0.

    Args:
        width: W, the width of frames and utterances; even.
        speakers: True to add the network over the turns of each speaker.

    Raises:
        HeadError: the width is odd.
    """

    def __init__(self, width: int, speakers: bool) -> None:
        super().__init__()
        self.frames = BiGRU(width)
        self.pooling = AttentionPooling(width)
        self.dialogue = BiGRU(width)
        self.norm = nn.LayerNorm(width)
        # Last, so that the other weights keep their numbers in the saved state of an optimizer.
        self.speaker = BiGRU(width) if speakers else None

    def forward(
        self, frames: Tensor, mask: Tensor, lengths: Tensor, dialogues: Dialogues
    ) -> Tensor:
        """Return c: (B, W).

        Args:
            frames: (B, T, W) floating, finite in the padding too.
            mask: (B, T) bool, True where a frame is valid.
            lengths: (B,) int64, the number of frames of each utterance; must agree with ``mask``.
            dialogues: the dialogues of the batch.
        """
        x = self.pooling(self.frames(frames, lengths), mask)
        return in_context(x, dialogues, self.dialogue, self.speaker, self.norm)
