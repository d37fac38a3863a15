"""Heads: small networks that classify emotions from cached hidden states of frozen encoders.

The heads import torch, and pydantic to check their options. A head takes padded tensors and their
lengths, and returns logits and losses; it does not depend on the cache or on training.
"""

from .dialogues import Dialogues
from .errors import HeadError
from .head import Head, HeadOutput
from .registry import HEADS, build_head

__all__ = ["HEADS", "Dialogues", "Head", "HeadError", "HeadOutput", "build_head"]
