"""Heads: small networks that classify emotions from cached hidden states of frozen encoders.

A head imports nothing but torch: it takes padded tensors and lengths, wherever they come from.
"""

from .dialogues import Dialogues
from .errors import HeadError
from .head import Head, HeadOutput
from .registry import HEADS, build_head

__all__ = ["HEADS", "Dialogues", "Head", "HeadError", "HeadOutput", "build_head"]
