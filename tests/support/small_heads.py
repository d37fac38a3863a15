"""Options that make each head small, for the tests of several rooms."""

from typing import Any

ALIGNED: dict[str, Any] = {"width": 16, "n_attention_heads": 2, "n_blocks": 1}
SMALL: dict[str, dict[str, Any]] = {
    "bottleneck": {"width": 16, "n_attention_heads": 2},
    "linear": {},
    "mgcma": ALIGNED,
    "distribution": ALIGNED,
    "token": ALIGNED,
    "instance": ALIGNED,
    "hbaf": {"width": 16, "layer": "mix"},
    "hbf": {"width": 16, "n_attention_heads": 2, "projection": 8},
    "query": {"width": 16, "n_attention_heads": 2},
}
"""Head → the options of a small head; a new head needs a line here."""
