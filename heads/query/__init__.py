"""Emotion queries: learned tokens that collect emotion information by cross-attention."""
