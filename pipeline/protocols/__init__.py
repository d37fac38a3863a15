"""Protocols, which split a corpus into folds, and the leakage check, without torch."""
