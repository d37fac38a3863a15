"""The precision of losses: float32 or wider, also for half features and under autocast."""

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """Return ``x``, floating of any shape, in float32, or in its own dtype if that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
