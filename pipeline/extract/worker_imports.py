"""What the workers of an extraction import; nothing slow is imported here."""

WORKER_IMPORTS = (
    "mser.pipeline.extract.worker",
    # All models of transformers need these, which take longer than torch.
    "transformers.modeling_layers",
    "transformers.models.auto.modeling_auto",
)
"""Names of modules. A fork server imports them once for all workers."""
