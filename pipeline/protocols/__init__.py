"""Protocols: how a corpus is divided into folds. Nothing here needs torch."""
