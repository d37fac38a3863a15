"""MRC: limits the gradient from the fusion to the input projections of a modality.

The abstract of HBF describes that MRC "restricts the learning path of modality encoders" to
mitigate conflicts. Everything here is an INTERPRETATION of this phrase. The output z of an input
projection is read by the fusion and by the losses of its own modality, with equal values. g_fused
is the gradient from the fusion, g_own the gradient from the modality's own losses. The input
projection receives:

    "off"      g_fused + g_own, the gradient of the sum of the losses.
    "scale"    β · g_fused + g_own: the fusion receives β·z + (1 - β)·stop_gradient(z). With β = 0
               the input projection learns only from the losses of its own modality.
    "project"  g_fused - min(0, <g_fused, g_own>) / ‖g_own‖² · g_own + g_own: if the two gradients
               conflict, the component of g_fused against g_own is removed.

"project" follows MMPareto (Wei & Hu, ICML 2024), which found these conflicts, with differences.
MMPareto compares the gradients of the parameters of an encoder. It takes 2α·g_fused +
2(1 - α)·g_own; in a conflict, α minimises the norm of the sum, so that both gradients change. It
then enlarges the result. Here the gradients are those of the output z, with one inner product over
the batch (all utterances, positions and channels) for each stage. Only g_fused changes, by a
projection as in PCGrad (Yu et al., NeurIPS 2020), but one-sided, and the result is not enlarged.
"""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

from ..errors import require, unknown

KINDS = ("off", "scale", "project")


class ModalityConstraint:
    """MRC, as the options of a head set it; the module docstring has the equations.

    Args:
        kind: ``"off"``, ``"scale"`` or ``"project"``.
        beta: β in [0, 1]; only ``"scale"`` uses it.

    Raises:
        HeadError: the kind is unknown, or β is out of its range.
    """

    def __init__(self, kind: str, beta: float) -> None:
        if kind not in KINDS:
            raise unknown("mrc", kind, KINDS)
        require(0 <= beta <= 1, f"beta must be in [0, 1], not {beta}")
        self.kind = kind
        self.beta = beta

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return z for the fusion and z for the modality's own losses; both equal z.

        ``z`` is floating with any shape; in HBF (B, T_m, W), the tokens of one stage.
        """
        if self.kind == "project":
            to_fusion, own = _WithoutConflict.apply(z)  # type: ignore[no-untyped-call]
            return to_fusion, own
        return (weakened(z, self.beta) if self.kind == "scale" else z), z


def weakened(z: Tensor, beta: float) -> Tensor:
    """β·z + (1 - β)·stop_gradient(z) [interpretation]: z with its gradient multiplied by β.

    The formula is written so that the values equal z exactly. With β = 0 there is no gradient,
    not a gradient of zeros.
    """
    fixed = z.detach()
    return fixed if beta == 0 else fixed + beta * (z - fixed)


def without_conflict(fused: Tensor, own: Tensor) -> Tensor:
    """Remove the component of a gradient against another [interpretation; PCGrad, one-sided].

    Args:
        fused: floating, any shape: g_fused.
        own: the same shape and dtype: g_own.

    Returns:
        g_fused if <g_fused, g_own> ≥ 0; otherwise g_fused - <g_fused, g_own>/‖g_own‖²·g_own, which
        is orthogonal to g_own. Computed in float32 or wider; has the dtype of ``fused``.
    """
    wide = torch.promote_types(fused.dtype, torch.float32)
    # Scale to a largest element of 1: the square can neither underflow nor overflow.
    direction = own.to(wide)
    direction = direction / direction.abs().amax().clamp(min=torch.finfo(wide).tiny)
    square = (direction * direction).sum().clamp(min=1)  # below 1 only if g_own is zero
    component = (fused.to(wide) * direction).sum() / square
    return (fused.to(wide) - component.clamp(max=0) * direction).to(fused.dtype)


class _WithoutConflict(Function):
    """Return z twice; backward, remove the component of the first gradient against the second."""

    @staticmethod
    def forward(ctx: FunctionCtx, z: Tensor) -> tuple[Tensor, Tensor]:
        return z.clone(), z.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, fused: Tensor, own: Tensor) -> Tensor:
        return without_conflict(fused, own) + own
