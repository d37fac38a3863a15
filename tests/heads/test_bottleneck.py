"""``bottleneck``: its equations, and in which block the modalities exchange information."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mser.heads.bottleneck import BottleneckFusion

DIMS = {"speech": 8, "text": 6}


def built(**options: Any) -> BottleneckFusion:
    torch.manual_seed(0)
    return BottleneckFusion(DIMS, 4, {"speech": 3, "text": 3}, **({"width": 8} | options)).eval()


def batch(seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    g = torch.Generator().manual_seed(seed)
    x = {m: torch.randn(2, 3, 5, d, generator=g) for m, d in DIMS.items()}
    return x, {"speech": torch.tensor([5, 3]), "text": torch.tensor([2, 5])}


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_the_fusion_follows_its_equations(n_blocks: int) -> None:
    head = built(n_blocks=n_blocks)
    x, n = batch()
    for i in range(2):  # one utterance at a time, without padding
        b = head.bottlenecks.unsqueeze(0)
        z, masks = {}, {}
        for m in DIMS:
            mixed = x[m][i : i + 1, :, : n[m][i]].mean(dim=1)  # the weights are equal at the start
            z[m] = head.projections.linears[m](head.projections.norms[m](mixed))
            masks[m] = torch.ones(z[m].shape[:2], dtype=torch.bool)
        assert len(head.blocks) == n_blocks
        for block in head.blocks:
            z, b = block(z, masks, b)
        fused = torch.cat([z["speech"].mean(1), z["text"].mean(1), b.mean(1)], dim=1)
        norm, linear = head.classifier[0], head.classifier[1]  # type: ignore[index]
        torch.testing.assert_close(head(x, n).logits[i : i + 1], linear(norm(fused)))


def test_modalities_exchange_information_from_the_second_block() -> None:
    fused: list[Tensor] = []
    for n_blocks in (1, 2):
        head = built(n_blocks=n_blocks)
        head.classifier.register_forward_pre_hook(lambda _, given: fused.append(given[0]))
        x, n = batch()
        head(x, n)
        head(x | {"speech": -x["speech"]}, n)
    text, bottlenecks = slice(8, 16), slice(16, 24)  # [speech ; text ; bottlenecks]
    assert torch.equal(fused[0][:, text], fused[1][:, text])
    assert not torch.allclose(fused[0][:, bottlenecks], fused[1][:, bottlenecks])
    assert not torch.allclose(fused[2][:, text], fused[3][:, text])


@pytest.mark.parametrize(("layer", "reads"), [(None, (0, 1, 2)), ("last", (2,)), (1, (1,))])
def test_the_layers_that_are_read(layer: str | int | None, reads: tuple[int, ...]) -> None:
    head = BottleneckFusion(DIMS, 4, {"speech": 3, "text": 3}, layer, width=8)
    assert head.layers == {"speech": reads, "text": reads}
