"""The context of a turn in HBAF: networks over the turns of a dialogue, and of each speaker.

The recurrent networks run over packed sequences, so that no step reads padding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from ..dialogues import Dialogues
from ..errors import require


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


class TurnContext(nn.Module):
    """Utterance vectors with the context of their dialogue, see :func:`in_context`.

    Args:
        width: W, the width of the utterance vectors; even.
        speakers: True to add the network over the turns of each speaker.

    Raises:
        HeadError: the width is odd.
    """

    def __init__(self, width: int, speakers: bool) -> None:
        super().__init__()
        self.dialogue = BiGRU(width)
        self.norm = nn.LayerNorm(width)
        self.speaker = BiGRU(width) if speakers else None

    def forward(self, x: Tensor, dialogues: Dialogues) -> Tensor:
        """(B, W) floating, the utterances of the dialogues, to (B, W)."""
        return in_context(x, dialogues, self.dialogue, self.speaker, self.norm)


def in_context(
    x: Tensor, dialogues: Dialogues, dialogue: BiGRU, speaker: BiGRU | None, norm: nn.LayerNorm
) -> Tensor:
    """Add to each utterance what came before and after it [interpretation].

    c_i = LN(x_i + BiGRU_dialogue(x)_i + BiGRU_speaker(x of the speaker of i)_i).

    The first network reads all turns of the dialogue in their order. The second network reads only
    the turns of one speaker in the dialogue, in their order, and is the same network for every
    speaker. Therefore the names of the speakers have no effect: only which turns have the same
    speaker.

    Args:
        x: (B, W) floating, the utterance vectors.
        dialogues: the dialogues of the batch.
        dialogue: the network over the turns of a dialogue.
        speaker: the network over the turns of a speaker; None to leave it out.
        norm: LN.

    Returns:
        c, (B, W).
    """
    total = x + _over(x, dialogue, dialogues.lengths().cpu())
    if speaker is not None:
        order, sizes = dialogues.by_speaker()
        order = order.to(x.device)
        total = total + _over(x[order], speaker, sizes.cpu())[order.argsort()]
    context: Tensor = norm(total)
    return context


def by_dialogue(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Utterances (B, …) to padded dialogues (G, N, …), with zeros (False) in the padding."""
    return pad_sequence(list(torch.split(x, list(sizes))), batch_first=True)


def by_utterance(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Padded dialogues (G, N, …) back to utterances (B, …) without the padding."""
    return torch.cat([dialogue[:size] for dialogue, size in zip(x, sizes, strict=True)])


def _over(x: Tensor, network: BiGRU, sizes: Tensor) -> Tensor:
    """Run a network over adjacent groups of (B, W) utterances; (B, W)."""
    counts = sizes.tolist()
    return by_utterance(network(by_dialogue(x, counts), sizes), counts)
