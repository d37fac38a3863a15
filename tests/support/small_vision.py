"""Small random vision encoders of every family, and their features by transformers alone."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoImageProcessor,
    AutoModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    VideoMAEConfig,
    VideoMAEModel,
    ViTConfig,
    ViTModel,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from transformers.utils import logging

LAYERS = 3  # two transformer layers and the input of the first
WIDTH = 32
CLIP_FRAMES, TUBE = 4, 2  # of the small VideoMAE
_SMALL: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS - 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
_TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 20,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
_CROPPED: dict[str, Any] = {"size": {"shortest_edge": 36}, "crop_size": 32}
FAMILIES: dict[str, Any] = {
    "clip": (
        lambda: CLIPModel(CLIPConfig(vision_config=_SMALL, text_config=_TEXT)),
        lambda: CLIPImageProcessorPil(**_CROPPED),
    ),
    "clip_vision_model": (
        lambda: CLIPVisionModel(CLIPVisionConfig(**_SMALL)),
        lambda: CLIPImageProcessorPil(**_CROPPED),
    ),
    "vit": (
        lambda: ViTModel(ViTConfig(**_SMALL)),
        lambda: ViTImageProcessorPil(size={"height": 32, "width": 32}),
    ),
    "dinov2": (
        lambda: Dinov2Model(Dinov2Config(**_SMALL)),
        lambda: BitImageProcessorPil(**_CROPPED),
    ),
    "dinov2_with_registers": (
        lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**_SMALL)),
        lambda: BitImageProcessorPil(**_CROPPED),
    ),
    "videomae": (
        lambda: VideoMAEModel(
            VideoMAEConfig(**_SMALL, num_frames=CLIP_FRAMES, use_mean_pooling=False)
        ),
        lambda: VideoMAEImageProcessorPil(**_CROPPED),
    ),
}
REGISTERS = {"dinov2_with_registers": 4}


def save_vision(folder: Path, kind: str) -> Path:
    """Save a small model of a family with its image processor; return the folder."""
    logging.disable_progress_bar()
    torch.manual_seed(1)
    model, processor = FAMILIES[kind]
    model().save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


def film(frames: int, seed: int = 0, height: int = 40, width: int = 52) -> Any:
    """Return noise (frames, height, width, 3) uint8."""
    size = (frames, height, width, 3)
    return np.random.default_rng([seed, frames]).integers(0, 256, size, dtype=np.uint8)


def direct_pictures(folder: Path, kind: str, video: Any) -> Any:
    """Class token and mean of the patches of each frame by itself, (layers, frames, 2 · width)."""
    processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)
    model = AutoModel.from_pretrained(folder).eval()
    model = getattr(model, "vision_model", model)
    rows = []
    for frame in video:
        inputs = processor(images=frame, return_tensors="pt")
        with torch.inference_mode():
            states = model(inputs["pixel_values"], output_hidden_states=True).hidden_states
        patches = [layer[0, 1 + REGISTERS.get(kind, 0) :] for layer in states]
        assert len(patches[0]) == 16  # 32 x 32 in patches of 8 x 8
        tokens = zip((layer[0, 0] for layer in states), patches, strict=True)
        rows.append(torch.stack([torch.cat([first, rest.mean(0)]) for first, rest in tokens]))
    return torch.stack(rows, 1).numpy()


def direct_clip(folder: Path, video: Any) -> Any:
    """The mean patch of each tube of one clip of VideoMAE, (layers, tubes, width)."""
    assert len(video) == CLIP_FRAMES
    processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)
    model = AutoModel.from_pretrained(folder).eval()
    inputs = processor([list(video)], return_tensors="pt")
    with torch.inference_mode():
        states = model(inputs["pixel_values"], output_hidden_states=True).hidden_states
    tubes = [torch.stack(layer[0].split(16)).mean(1) for layer in states]
    return torch.stack(tubes).numpy()
