"""Which utterances of a batch have identical input, and the losses without these negatives."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mser.heads import HeadError, HeadOutput, build_head
from mser.heads.modules.contrastive import dot_info_nce, info_nce, supervised_contrastive
from mser.heads.modules.false_negatives import FalseNegatives, in_either, repeats
from mser.tests.support.slow_contrast import slow_info_nce
from mser.tests.support.slow_layers import double

seeds = st.integers(0, 2**31)
quick = settings(max_examples=20, deadline=None)
groups = st.lists(st.integers(0, 3), min_size=1, max_size=6)
"""Utterances with the same number have the same input."""


def same(group: list[int]) -> Tensor:
    """(B, B) bool: i ≠ j have the same number."""
    n = range(len(group))
    return torch.tensor([[i != j and group[i] == group[j] for j in n] for i in n])


def unit(x: Tensor) -> Tensor:
    return x / x.square().sum(dim=1, keepdim=True).sqrt()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@given(
    st.lists(st.text("01", max_size=4), min_size=1, max_size=8), st.integers(0, 2), st.booleans()
)
@quick
def test_repeats_are_the_pairs_with_the_same_numbers(
    dtype: torch.dtype, texts: list[str], extra: int, one_padding: bool
) -> None:
    size = max(1, *map(len, texts)) + extra
    x = torch.full((len(texts), 2, size, 3), math.nan, dtype=dtype)
    for i, text in enumerate(texts):
        for t, digit in enumerate(text):
            x[i, :, t] = float(digit)
        x[i, :, len(text) :] = 0 if one_padding else i
    found = repeats(x, torch.tensor([len(text) for text in texts]))
    n = range(len(texts))
    expected = [[i != j and texts[i] == texts[j] != "" for j in n] for i in n]
    assert found.tolist() == expected


@pytest.mark.parametrize("position", [(0, 0, 0), (1, 4, 39), (0, 2, 20), (1, 0, 16)])
def test_one_different_bit_is_enough(position: tuple[int, int, int]) -> None:
    x = torch.randn(1, 2, 5, 40).repeat(3, 1, 1, 1)
    x[(1, *position)] = torch.nextafter(x[(1, *position)], torch.tensor(9.0))
    found = repeats(x, torch.tensor([5, 5, 5]))
    assert found.nonzero().tolist() == [[0, 2], [2, 0]]
    assert repeats(torch.tensor([0.0, -0.0]).view(2, 1, 1, 1), torch.tensor([1, 1])).sum() == 0


def test_repeats_work_for_views_and_with_gradients() -> None:
    x = torch.randn(5, 2, 3, 4).transpose(0, 1)[:, [0, 1, 0, 1, 2]].requires_grad_()
    assert repeats(x.transpose(0, 1), torch.full((5,), 3)).sum() == 4


def test_a_pair_is_left_out_if_it_is_identical_in_either_modality() -> None:
    found = {"speech": same([0, 1, 2, 0]), "text": same([0, 0, 1, 2])}
    either = in_either(found, ("speech", "text"))
    assert either is not None
    assert either.nonzero().tolist() == [[0, 1], [0, 3], [1, 0], [3, 0]]
    assert FalseNegatives("drop", True).counts(found)["false_negatives"] == 2
    assert in_either({}, ("speech", "text")) is None


@pytest.mark.parametrize("loss", [info_nce, dot_info_nce])
@given(seeds, groups, st.floats(0.1, 2))
@quick
def test_info_nce_without_false_negatives_follows_its_formula(
    loss: Any, seed: int, group: list[int], tau: float
) -> None:
    n = len(group)
    a, b = double(seed, n, 3), double(seed + 1, n, 3)
    x, y = (unit(a), unit(b)) if loss is info_nce else (a, b)
    slow = slow_info_nce(
        lambda i, j: float(x[i] @ y[j]) / tau, range(n), lambda i, j: group[i] == group[j]
    )
    assert float(loss(a, b, tau, None, same(group))) == pytest.approx(slow, abs=1e-9)
    # The order of the utterances does not matter.
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    shuffled = loss(a[order], b[order], tau, None, same(group)[order][:, order])
    assert float(shuffled) == pytest.approx(slow, abs=1e-9)
    # Utterances that lack a modality leave the matrix of repetitions too.
    kept = [i for i in range(n) if group[i] != 0]
    present = torch.tensor([number != 0 for number in group])
    slow = slow_info_nce(
        lambda i, j: float(x[i] @ y[j]) / tau, kept, lambda i, j: group[i] == group[j]
    )
    assert float(loss(a, b, tau, present, same(group))) == pytest.approx(slow, abs=1e-9)


@given(seeds, st.integers(1, 6))
@quick
def test_without_repetitions_the_losses_are_the_plain_losses(seed: int, n: int) -> None:
    a, b, none = double(seed, n, 3), double(seed + 1, n, 3), same(list(range(n)))
    labels = torch.arange(n) % 2
    assert torch.equal(info_nce(a, b, 0.1, None, none), info_nce(a, b, 0.1))
    assert torch.equal(dot_info_nce(a, b, 0.1, None, none), dot_info_nce(a, b, 0.1))
    dropped = supervised_contrastive(a, b, labels, 0.1, None, none)
    assert torch.equal(dropped, supervised_contrastive(a, b, labels, 0.1))


@given(seeds, groups, st.floats(0.1, 2))
@quick
def test_supervised_contrast_without_false_negatives_follows_its_formula(
    seed: int, group: list[int], tau: float
) -> None:
    n = len(group)
    labels = [(seed + 3 * i) % 2 for i in range(n)]
    a, b = double(seed, n, 4), double(seed + 1, n, 4)
    views, total = unit(torch.cat([a, b])), 0.0
    for i in range(2 * n):
        alike = [labels[j % n] == labels[i % n] for j in range(2 * n)]
        # A repetition of another class is not in A(i).
        considered = [
            j for j in range(2 * n) if j != i and (alike[j] or group[j % n] != group[i % n])
        ]
        weights = {j: math.exp(float(views[i] @ views[j]) / tau) for j in considered}
        positives = [j for j in considered if alike[j]]
        total -= sum(math.log(weights[p] / sum(weights.values())) for p in positives) / len(
            positives
        )
    fast = supervised_contrastive(a, b, torch.tensor(labels), tau, None, same(group))
    assert float(fast) == pytest.approx(total / (2 * n), abs=1e-9)


def test_the_gradients_of_the_losses_are_their_derivatives() -> None:
    a, b = double(0, 4, 3).requires_grad_(), double(1, 4, 3).requires_grad_()
    repeated, labels = same([0, 1, 0, 2]), torch.tensor([0, 0, 1, 1])
    for loss in (info_nce, dot_info_nce):
        assert torch.autograd.gradcheck(lambda a, b: loss(a, b, 0.5, None, repeated), (a, b))  # noqa: B023
    assert torch.autograd.gradcheck(
        lambda a, b: supervised_contrastive(a, b, labels, 0.5, None, repeated), (a, b)
    )


# In the heads.

CONTRASTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "mgcma": (
        {"n_attention_heads": 2, "modules": ["distribution", "instance"]},
        {"distribution", "instance"},
    ),
    "hbf": ({"n_attention_heads": 2, "projection": 4}, {"intra_modal", "inter_modal"}),
    "hbaf": ({}, {"absolute"}),
}
every_contrast = pytest.mark.parametrize("name", CONTRASTS)
LABELS = torch.tensor([0, 1, 2, 3, 0])


def run(name: str, repetition: tuple[str, ...], **options: Any) -> HeadOutput:
    """Five utterances; in the given modalities, those with the numbers 1 and 3 are identical."""
    torch.manual_seed(0)
    head = build_head(name, {"speech": 6, "text": 5}, 4, width=8, **CONTRASTS[name][0] | options)
    g = torch.Generator().manual_seed(1)
    x = {m: torch.randn(5, 1, 4, dim, generator=g) for m, dim in head.dims.items()}
    n = {m: torch.tensor([4, 3, 2, 3, 4]) for m in x}
    for m in repetition:
        x[m][3, :, :3] = x[m][1, :, :3]
    torch.manual_seed(2)
    return head(x, n, LABELS)


@every_contrast
@pytest.mark.parametrize("repetition", [("speech",), ("text",), ("speech", "text")])
def test_the_heads_leave_repetitions_out(name: str, repetition: tuple[str, ...]) -> None:
    dropped, kept = run(name, repetition), run(name, repetition, false_negatives="keep")
    assert dropped.counts == {"false_negatives": 1}
    assert kept.counts == {}
    terms = CONTRASTS[name][1]
    for term, value in dropped.terms.items():
        if term in terms:
            assert value < kept.terms[term]  # the denominators have fewer summands
        else:
            assert value == kept.terms[term]
    assert torch.equal(dropped.logits, kept.logits)


@every_contrast
def test_without_repetitions_the_heads_lose_nothing(name: str) -> None:
    dropped, kept = run(name, ()), run(name, (), false_negatives="keep")
    assert dropped.counts == {"false_negatives": 0}
    assert dropped.terms == kept.terms


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mgcma", {"modules": ["token"]}),
        ("mgcma", {"distribution_weight": 0, "instance_weight": 0}),
        ("hbf", {"intra_weight": 0, "inter_weight": 0}),
        ("hbaf", {"absolute_weight": 0}),
    ],
)
def test_a_head_without_a_contrast_counts_nothing(name: str, options: dict[str, Any]) -> None:
    assert run(name, ("text",), **options).counts == {}


@every_contrast
def test_another_value_is_an_error(name: str) -> None:
    with pytest.raises(HeadError, match=r"'leave' \(known: drop, keep\)") as error:
        run(name, (), false_negatives="leave")
    assert "\n" not in str(error.value)
