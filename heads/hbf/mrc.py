"""MRC: how much of the fusion's gradient reaches a modality's own stem.

The abstract of HBF says that MRC "restricts the learning path of modality encoders" to mitigate
conflicts; everything here is an INTERPRETATION of that half-sentence. A stem's output z goes two
ways, to the fusion and to the modality's own losses, with the same values on both. What differs is
the gradient that the fusion sends back, g_fused, beside that of the modality's own losses, g_own:

    "off"      g_fused + g_own, the gradient of the sum of the losses.
    "scale"    β · g_fused + g_own: the fusion receives β·z + (1 - β)·stop_gradient(z). With β = 0
               the stem learns from its modality's own losses alone.
    "project"  g_fused - min(0, <g_fused, g_own>) / ‖g_own‖² · g_own + g_own: where the two are at
               odds, the fusion gives up what would undo the modality's own learning.

"project" is after MMPareto (Wei & Hu, ICML 2024), which found these conflicts, and differs in this:
MMPareto compares the gradients of an encoder's parameters, takes 2α·g_fused + 2(1 - α)·g_own, where
they conflict with the α of the least norm, so that both change, and then lengthens the result.
Here the gradients are those of the stem's output z, one inner product over the batch (all
utterances, positions and channels) for each stage's stem; only g_fused is changed, by a projection
as in PCGrad (Yu et al., NeurIPS 2020) but one-sided; and nothing is lengthened.
"""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

from ..errors import require, unknown

KINDS = ("off", "scale", "project")


class ModalityConstraint:
    """MRC as the options of a head describe it; the module's docstring has the equations.

    Args:
        kind: ``"off"``, ``"scale"`` or ``"project"``.
        beta: β in [0, 1], of ``"scale"`` alone.

    Raises:
        HeadError: another kind, or a β out of its range.
    """

    def __init__(self, kind: str, beta: float) -> None:
        if kind not in KINDS:
            raise unknown("mrc", kind, KINDS)
        require(0 <= beta <= 1, f"beta must be in [0, 1], not {beta}")
        self.kind = kind
        self.beta = beta

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return z for the fusion and z for the modality's own losses, both equal to z.

        ``z`` is floating of any shape, in HBF the (B, T_m, W) tokens of one stage.
        """
        if self.kind == "project":
            to_fusion, own = _WithoutConflict.apply(z)  # type: ignore[no-untyped-call]
            return to_fusion, own
        return (weakened(z, self.beta) if self.kind == "scale" else z), z


def weakened(z: Tensor, beta: float) -> Tensor:
    """β·z + (1 - β)·stop_gradient(z) [interpretation]: z, whose gradient counts β times.

    Written so that the values are those of z to the last bit; with β = 0 there is no gradient at
    all, and not one of zeros.
    """
    fixed = z.detach()
    return fixed if beta == 0 else fixed + beta * (z - fixed)


def without_conflict(fused: Tensor, own: Tensor) -> Tensor:
    """Take from a gradient its component against another [interpretation; PCGrad, one-sided].

    Args:
        fused: floating, any shape: g_fused.
        own: of the same shape and dtype: g_own.

    Returns:
        g_fused where <g_fused, g_own> ≥ 0, and otherwise g_fused - <g_fused, g_own>/‖g_own‖²·g_own,
        which is orthogonal to g_own; computed in float32 at least, in the dtype of ``fused``.
    """
    wide = torch.promote_types(fused.dtype, torch.float32)
    # With 1 as its largest element, the square of a direction can neither vanish nor overflow,
    # however small or large the gradients are.
    direction = own.to(wide)
    direction = direction / direction.abs().amax().clamp(min=torch.finfo(wide).tiny)
    square = (direction * direction).sum().clamp(min=1)  # below 1 only where g_own is zero
    component = (fused.to(wide) * direction).sum() / square
    return (fused.to(wide) - component.clamp(max=0) * direction).to(fused.dtype)


class _WithoutConflict(Function):
    """Hand z on twice; backward, the first gradient yields where it is at odds with the second."""

    @staticmethod
    def forward(ctx: FunctionCtx, z: Tensor) -> tuple[Tensor, Tensor]:
        return z.clone(), z.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, fused: Tensor, own: Tensor) -> Tensor:
        return without_conflict(fused, own) + own
