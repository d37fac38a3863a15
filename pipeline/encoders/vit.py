"""Vision transformers with a class token, which encode each frame by itself: ViT, DINOv2, CLIP.

A frame of the features is the class token, then the mean of the patches: the class token is what
the model was trained with, and the patches hold what it does not attend to. Register tokens are
left out.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .vision import Frame, Pictures, VisionEncoder
from .windows import Window


class ViTEncoder(VisionEncoder):
    """A frame of a video gives a frame of the features, of twice the width of the model."""

    def shape(self) -> tuple[int, int]:
        """Return the number of hidden layers, and twice their width."""
        vision = self.vision_config
        return vision.num_hidden_layers + 1, 2 * int(vision.hidden_size)

    @property
    def vision_config(self) -> Any:
        """The configuration of the model, or of its part for pictures."""
        return getattr(self.config, "vision_config", self.config)

    def load(self) -> torch.nn.Module:
        """Load the model, of CLIP only the part for pictures."""
        model = super().load()
        return getattr(model, "vision_model", model)

    def own_identity(self) -> dict[str, Any]:
        """Return what changes the hidden states, with the way in which a picture becomes one."""
        return {**super().own_identity(), "tokens": "class token, mean of the patches"}

    def frames_of(self, pictures: int) -> int:
        """Return the number of pictures."""
        return pictures

    def prepare(self, utterance: Pictures | Sequence[Frame]) -> list[Window]:
        """Return a window for each picture: any pictures can share a forward pass."""
        pictures = self.as_pictures(utterance).values
        return [Window(picture, 1, slice(0, 1)) for picture in pictures]

    def hidden_states(
        self, model: torch.nn.Module, values: Tensor, lengths: Sequence[int]
    ) -> Sequence[Tensor]:
        """Run the model on pictures (batch, 3, height, width)."""
        result = model(self.scaled(values), output_hidden_states=True)
        first = 1 + int(getattr(self.vision_config, "num_register_tokens", 0))
        return [
            torch.cat([states[:, 0], states[:, first:].mean(dim=1)], dim=-1)[:, None]
            for states in result.hidden_states
        ]
