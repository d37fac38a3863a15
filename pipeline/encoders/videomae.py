"""VideoMAE: clips of frames in, a vector for each tube of two frames out.

The model has no class token. A frame of the features is the mean of the patches of one tube (two
frames that follow each other, in VideoMAE's configuration ``tubelet_size``).
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .encoder import EncoderSettings
from .vision import Frame, Pictures, VisionEncoder
from .windows import Window, cut


class VideoMAEEncoder(VisionEncoder):
    """Clips of the length that the model was trained on, which overlap by half in a longer video.

    The cuts are in the middle of the overlaps. If a video is shorter than a clip, or has an odd
    number of frames, its last frame is repeated, and the tubes of repetitions alone are left out.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        self.tube = int(self.config.tubelet_size)
        self.clip = int(self.config.num_frames)
        self.frames_at_once = max(1, self.frames_at_once // self.clip) * (self.clip // self.tube)

    def own_identity(self) -> dict[str, Any]:
        """Return what changes the hidden states, with the way in which a tube becomes one."""
        overlap = self.clip // self.tube // 2
        return {
            **super().own_identity(),
            "tokens": "mean of the patches of a tube",
            "clip_tubes": [self.clip // self.tube, overlap],
        }

    @cached_property
    def input_bytes(self) -> int:
        """The size in memory of the pictures of a tube."""
        return super().input_bytes * self.tube

    def frames_of(self, pictures: int) -> int:
        """Return the number of tubes; an incomplete tube counts."""
        return -(-pictures // self.tube)

    def prepare(self, utterance: Pictures | Sequence[Frame]) -> list[Window]:
        """Cut the pictures of an utterance into clips (frames, 3, height, width)."""
        pictures = self.as_pictures(utterance).values
        tubes = self.frames_of(len(pictures))
        if not tubes:
            return []
        size = self.clip // self.tube
        filled = _filled(pictures, max(tubes, size) * self.tube)
        return [
            Window(filled[start * self.tube :][: self.clip], size, kept)
            for start, kept in cut(tubes, size, size // 2)
        ]

    def hidden_states(
        self, model: torch.nn.Module, values: Tensor, lengths: Sequence[int]
    ) -> Sequence[Tensor]:
        """Run the model on clips (batch, frames, 3, height, width)."""
        result = model(self.scaled(values), output_hidden_states=True)
        size = self.clip // self.tube
        return [
            states.unflatten(1, (size, -1)).mean(dim=2)  # the tokens of a tube stand together
            for states in result.hidden_states
        ]


def _filled(pictures: NDArray[np.uint8], length: int) -> NDArray[np.uint8]:
    """Repeat the last picture until there are ``length``."""
    missing = length - len(pictures)
    return np.concatenate([pictures, pictures[-1:].repeat(missing, axis=0)])
