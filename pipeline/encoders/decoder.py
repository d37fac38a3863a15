"""Decoder language models such as GPT-2 and Llama: the hidden states of each token.

A token sees the tokens before it and not those after it, so only the last token has seen the whole
text. Padding is after the text, where no token sees it, and the positions of the tokens are those
of the text alone. There are the special tokens that the model's own tokenizer adds, such as a
beginning of the text in Llama, or none.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .encoder import padding_mask
from .text import TextEncoder


class DecoderEncoder(TextEncoder):
    """A decoder language model, without its prediction of the next token.

    Of a text that is too long for the model, a token at the beginning of a later window sees fewer
    of the tokens before it; see :class:`.TextEncoder`.
    """

    def hidden_states(
        self, model: torch.nn.Module, values: Tensor, lengths: Sequence[int]
    ) -> Sequence[Tensor]:
        """Run the model on token ids (batch, tokens), without a cache of keys and values."""
        mask = padding_mask(lengths, values)
        result = model(values, attention_mask=mask, output_hidden_states=True, use_cache=False)
        return result.hidden_states  # type: ignore[no-any-return]
