"""Metrics of predictions, their confidence intervals, and comparisons of runs, without torch."""
