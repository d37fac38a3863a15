"""Scores of predictions, their intervals, and comparisons. Nothing here needs torch."""
