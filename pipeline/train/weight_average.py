"""The running average of a head's weights, which is tested in place of the last weights.

After step n, averaged ← d · averaged + (1 - d) · weights, with d = min(decay, (1 + n) / (10 + n)):
the first steps, far from the end, are soon forgotten. Averages of weights go back to Polyak and
Juditsky (1992); the exponential form with this start is that of TensorFlow's
``ExponentialMovingAverage``.
"""

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from ...heads import Head

Tensors = tuple[Tensor, ...] | list[Tensor]


class WeightAverage:
    """An average of the weights of ``head``, as a head of its own.

    Args:
        head: on its device; its buffers stay as they are now.
        decay: in (0, 1): about 1 / (1 - decay) steps are averaged.
    """

    def __init__(self, head: Head, decay: float) -> None:
        def average(averaged: Tensors, current: Tensors, steps: Tensor | int) -> None:
            n = int(steps)
            share = 1 - min(decay, (1 + n) / (10 + n))
            torch._foreach_lerp_(averaged, current, share)

        self._model = AveragedModel(head, multi_avg_fn=average)

    @property
    def head(self) -> Head:
        """The head with the averaged weights."""
        head = self._model.module
        assert isinstance(head, Head)  # noqa: S101 -- for the type
        return head

    def update(self, head: Head) -> None:
        """Take the weights after a step into the average."""
        self._model.update_parameters(head)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights and the number of steps."""
        state: dict[str, Tensor] = self._model.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load what :meth:`state_dict` returned."""
        self._model.load_state_dict(state)
