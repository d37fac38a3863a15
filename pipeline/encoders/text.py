"""Text encoders such as BERT: a text in, a vector for each token out, with special tokens."""

from functools import cached_property
from typing import Any

import numpy as np

from ..errors import PipelineError
from .encoder import Encoder, EncoderSettings
from .windows import Window

OVERLAP_TOKENS = 64
# These models count positions from the id of the padding on, so they never use the first ones.
_POSITIONS_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")


class TextEncoder(Encoder[str]):
    """An encoder of texts. The frames of an utterance are its tokens, ``[CLS] … [SEP]``.

    A text that is too long for the model is encoded in windows that overlap by ``OVERLAP_TOKENS``
    and are cut in the middle of the overlap. Each window has its own special tokens; only those at
    the beginning of the first window and at the end of the last window are kept. So the tokens that
    are kept are those of the whole text.
    """

    modality = "text"

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        self.padding = int(self.config.pad_token_id or 0)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's own tokenizer.

        Raises:
            PipelineError: it needs a package that is not installed, or is not a fast tokenizer.
        """
        from transformers import AutoTokenizer  # noqa: PLC0415 -- seconds to import

        folder = self.settings.files.folder
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (ImportError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())
            raise PipelineError(f"the tokenizer in {folder} cannot be loaded: {reason}") from error
        if not tokenizer.is_fast:
            raise PipelineError(
                f"the tokenizer in {folder} is not a fast one: save it with a tokenizer.json"
            )
        return tokenizer

    @cached_property
    def max_tokens(self) -> int:
        """The largest number of tokens in a forward pass, with special tokens."""
        positions = self.config.max_position_embeddings
        if self.config.model_type in _POSITIONS_FROM_PADDING:
            positions -= self.padding + 1
        return int(min(self.tokenizer.model_max_length, positions))

    def input_identity(self) -> dict[str, Any]:
        """Return the size and the overlap of the windows."""
        return {"window_tokens": [self.max_tokens, OVERLAP_TOKENS]}

    def frames(self, utterance: str) -> int:
        """Return the number of tokens of a text, with special tokens."""
        encoded = self.tokenizer(utterance, truncation=False, verbose=False)
        return len(encoded["input_ids"])

    def prepare(self, utterance: str) -> list[Window]:
        """Tokenize a text, and cut it into windows if it is long.

        The windows are cut here: some versions of the tokenizers lose tokens when they truncate
        with an overlap.
        """
        encoded = self.tokenizer(
            utterance, truncation=False, return_special_tokens_mask=True, verbose=False
        )
        ids = np.array(encoded["input_ids"], dtype=np.int64)
        before, after = _outer(np.array(encoded["special_tokens_mask"], dtype=bool))
        first, text, final = np.split(ids, [before, len(ids) - after])
        overlap = min(OVERLAP_TOKENS, self.max_tokens // 4)
        size = self.max_tokens - before - after
        starts = range(0, max(len(text) - overlap, 1), size - overlap)
        windows = []
        for start in starts:
            window = np.concatenate([first, text[start : start + size], final])
            kept = slice(
                0 if start == starts[0] else before + overlap // 2,
                len(window) - (0 if start == starts[-1] else after + overlap - overlap // 2),
            )
            windows.append(Window(window, len(window), kept))
        return windows


def _outer(special: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[int, int]:
    """Count the special tokens before and after the text; the text may have no tokens."""
    content = np.flatnonzero(~special)
    if not len(content):
        return len(special), 0
    return int(content[0]), len(special) - 1 - int(content[-1])
