"""HBF: modality constraint with hierarchical bottleneck feature fusion."""
