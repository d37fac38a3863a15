"""The base class of vision encoders: the frames of a video in, a vector for each picture out."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import PipelineError, UsageError
from .encoder import Encoder, EncoderSettings

PICTURE_IDENTITY = {
    "colours": "libswscale to RGB, 8 bits a channel",
    "upright": "by the display matrix and the pixel aspect of the video",
    "resize": "Pillow, by the image processor of the model",
}
"""How a picture is made of a frame; part of the identity of all features of vision."""

# Pictures in one forward pass. A picture of 224 x 224 takes about 15 MB in a ViT-B/16.
_AT_ONCE = {"cpu": 16, "cuda": 256}

Frame = NDArray[np.uint8]


class Pictures(NamedTuple):
    """The frames of an utterance after the resizing and the crop of the image processor."""

    values: NDArray[Any]
    """(frames, 3, height, width), uint8 from 0 to 255."""
    remark: str | None = None
    """What a user should know of how they were made."""


class VisionEncoder(Encoder[Any]):
    """An encoder of videos, each a sequence of frames (height, width, 3) uint8, RGB.

    The image processor of the model resizes and crops each frame with Pillow, whether or not
    torchvision is installed, because the two give other pixels. The brightness is scaled in the
    forward pass: until then a picture needs a byte for each value.
    """

    modality = "vision"

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        self.frames_at_once = _AT_ONCE[self.device.type]
        self.choice = settings.frames
        _ = self.processor  # one that does not fit raises its error now, before any work

    def input_identity(self) -> dict[str, Any]:
        """Return how frames are chosen, cropped and resized."""
        return {**PICTURE_IDENTITY, **self.choice.identity()}

    @cached_property
    def processor(self) -> Any:
        """The image processor that was saved with the model.

        Raises:
            UsageError: Pillow is not installed.
            PipelineError: the folder holds no image processor.
        """
        try:
            import PIL  # noqa: F401, PLC0415
        except ImportError:
            raise UsageError(
                "vision needs Pillow, which is not installed: pip install 'mser[vision]'"
            ) from None
        from transformers import AutoImageProcessor  # noqa: PLC0415 -- seconds to import
        from transformers.utils import logging  # noqa: PLC0415

        logging.set_verbosity_error()
        folder = self.settings.files.folder
        try:
            return AutoImageProcessor.from_pretrained(folder, local_files_only=True, use_fast=False)
        except (OSError, ValueError, ImportError) as error:
            reason = " ".join(str(error).split())
            raise PipelineError(
                f"the image processor in {folder} cannot be loaded: {reason}"
            ) from error

    def pictures(self, frames: Iterable[Frame]) -> Pictures:
        """Resize and crop frames (height, width, 3) uint8, RGB, one after the other.

        Raises:
            UsageError: a frame has another shape or type.
        """
        pictures = [self._picture(checked_frame(frame)) for frame in frames]
        return Pictures(np.stack(pictures) if pictures else np.zeros((0, 3, 1, 1), np.uint8))

    def _picture(self, frame: Frame) -> NDArray[Any]:
        processed = self.processor(
            frame,
            do_rescale=False,
            do_normalize=False,
            input_data_format="channels_last",
            return_tensors="np",
        )
        values = np.asarray(processed["pixel_values"])  # perhaps in lists of videos
        return values.reshape(values.shape[-3:])

    def as_pictures(self, utterance: Pictures | Iterable[Frame]) -> Pictures:
        """Return the pictures of an utterance, which may be those already."""
        return utterance if isinstance(utterance, Pictures) else self.pictures(utterance)

    def scaled(self, pictures: Tensor) -> Tensor:
        """Scale pictures (…, 3, height, width) to float32, as the image processor would."""
        processor, values = self.processor, pictures.float()
        if processor.do_rescale:
            values = values * float(processor.rescale_factor)
        if processor.do_normalize:
            mean, std = (
                torch.tensor(numbers, dtype=torch.float32, device=values.device)[:, None, None]
                for numbers in (processor.image_mean, processor.image_std)
            )
            values = (values - mean) / std
        return values

    def frames(self, utterance: Pictures | Sequence[Frame]) -> int:
        """Return how many frames the features of an utterance have."""
        given = utterance.values if isinstance(utterance, Pictures) else utterance
        return self.frames_of(len(given))

    def planned_frames(self, source: Any, seconds: float) -> int:
        """Return how many frames the features of a video of so many seconds will have."""
        return self.frames_of(self.choice.expected(seconds))

    @cached_property
    def input_bytes(self) -> int:
        """The size in memory of the pictures of a frame of the features."""
        return self._picture(np.zeros((8, 8, 3), np.uint8)).nbytes

    @abstractmethod
    def frames_of(self, pictures: int) -> int:
        """Return how many frames the features of so many pictures have."""


def checked_frame(frame: Any) -> Frame:
    """Return a frame (height, width, 3) uint8.

    Raises:
        UsageError: it has another shape or type.
    """
    array = np.asarray(frame)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape or array.dtype != np.uint8:
        raise UsageError(
            f"a frame has the shape {array.shape} and the type {array.dtype}: give pictures "
            "(height, width, 3) of uint8, RGB"
        )
    return array
