"""Figures of reports, probes, embeddings and benchmarks, drawn with matplotlib."""
