"""MGCMA: multi-granularity cross-modal alignment."""
