"""Emotion queries: learned tokens that gather emotion information by cross-attention."""
