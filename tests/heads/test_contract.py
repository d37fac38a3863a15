"""The contract of every head: padding, shapes, dtypes, terms, gradients, saving and loading."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from mser.heads import HEADS, Head, HeadError, HeadOutput, build_head
from mser.heads.dialogues import Dialogues
from mser.tests.support.small_heads import ALIGNED, SMALL

DIMS = {"speech": 24, "text": 16, "vision": 8}
LAYERS = {"speech": 5, "text": 4, "vision": 1}
# Options that make the loss deterministic and its gradient the true derivative.
EXACT: dict[str, dict[str, Any]] = {"hbf": {"beta": 1.0}, "query": {"masking": 0.0}}
N_CLASSES = 4

every_head = pytest.mark.parametrize("name", sorted(HEADS))
every_count = pytest.mark.parametrize("count", [1, 2, 3])


def small(name: str, count: int = 2, **options: object) -> Head:
    torch.manual_seed(0)
    dims = dict(list(DIMS.items())[:count])
    layers = {m: LAYERS[m] for m in dims}
    return build_head(name, dims, N_CLASSES, layers, **(SMALL[name] | options))


@cache
def evaluated(name: str, count: int) -> Head:
    """Return a small head in evaluation mode, which several tests share: do not change it."""
    return small(name, count).eval()


def utterances(
    head: Head, lengths: Sequence[Sequence[int]], seed: int = 0
) -> list[dict[str, Tensor]]:
    """Return modality → (L_m, length, D_m) for each utterance."""
    g = torch.Generator().manual_seed(seed)
    return [
        {
            m: torch.randn(len(head.layers[m]), n, dim, generator=g)
            for (m, dim), n in zip(head.dims.items(), row, strict=False)
        }
        for row in lengths
    ]


def collate(
    rows: list[dict[str, Tensor]], extra: int = 0, padding: float = math.nan
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    features, lengths = {}, {}
    for m in rows[0]:
        n = [row[m].shape[1] for row in rows]
        first = rows[0][m]
        size = max(1, *n) + extra
        x = first.new_full((len(rows), len(first), size, first.shape[2]), padding)
        for i, row in enumerate(rows):
            x[i, :, : n[i]] = row[m]
        features[m], lengths[m] = x, torch.tensor(n)
    return features, lengths


def batch(
    head: Head, n: int = 5, seed: int = 0
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    lengths = [[1 + (i * 3 + j) % 7 for j in range(3)] for i in range(n)]
    return *collate(utterances(head, lengths, seed)), torch.arange(n) % N_CLASSES


@every_head
@every_count
@given(
    lengths=st.lists(st.tuples(*[st.integers(1, 12)] * 3), min_size=1, max_size=4),
    extra=st.integers(0, 5),
    padding=st.sampled_from([math.nan, math.inf, -1e30, 0.0, 7.0]),
)
@settings(max_examples=5, deadline=None)
def test_the_logits_do_not_depend_on_the_batch_and_the_padding(
    name: str, count: int, lengths: list[tuple[int, ...]], extra: int, padding: float
) -> None:
    head = evaluated(name, count)
    rows = utterances(head, lengths)
    with torch.inference_mode():
        together = head(*collate(rows, extra, padding)).logits
        alone = torch.cat([head(*collate([row])).logits for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert together.shape == (len(rows), N_CLASSES)


@every_head
@pytest.mark.parametrize("count", [2, 3])
@given(
    lengths=st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=2),
    padding=st.sampled_from([math.nan, math.inf, -1e30, 0.0, 7.0]),
)
@settings(max_examples=5, deadline=None)
def test_a_modality_may_be_missing(
    name: str, count: int, lengths: list[tuple[int, ...]], padding: float
) -> None:
    head = evaluated(name, count)
    some = [row if any(row[:count]) else (1, *row[1:]) for row in lengths]
    # Each modality is missing in one utterance, and speech is the only modality of one.
    rows = utterances(head, [*some, (0, 2, 3), (3, 0, 1), (2, 0, 0)])
    with torch.inference_mode():
        together = head(*collate(rows, 2, padding)).logits
        alone = torch.cat([head(*collate([row], 0, padding)).logits for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert torch.isfinite(together).all()


@every_head
@pytest.mark.parametrize(
    "lengths",
    [[[0, 3, 0], [2, 0, 1]], [[0, 3, 2]], [[0, 3, 0]] * 3],
    ids=["nothing in common", "one utterance", "one modality in all"],
)
def test_gradients_are_finite_without_a_modality(name: str, lengths: list[list[int]]) -> None:
    gradients = []
    for padding in (math.nan, 7.0):
        head = small(name, 3, **EXACT.get(name, {}), dropout=0.0)
        out = head(*collate(utterances(head, lengths), 1, padding), torch.arange(len(lengths)))
        assert out.loss is not None
        out.loss.backward()
        gradients.append({k: p.grad for k, p in head.named_parameters() if p.grad is not None})
        assert torch.isfinite(out.loss)
        assert all(torch.isfinite(x).all() for x in gradients[-1].values())
    torch.testing.assert_close(*gradients, atol=0, rtol=0)


@every_head
def test_losses_and_gradients_are_finite_for_short_and_long_utterances(name: str) -> None:
    head = small(name, 3, dropout=0.1)
    features, lengths = collate(utterances(head, [[700, 4, 31], [4, 180, 700], [57, 700, 4]]))
    out = head(features, lengths, torch.tensor([0, 1, 3]))
    assert out.loss is not None
    out.loss.backward()
    assert torch.isfinite(out.logits).all()
    assert torch.isfinite(out.loss)
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


@every_head
def test_gradients_are_the_derivatives_of_the_loss(name: str) -> None:
    torch.manual_seed(0)
    tiny = {"width": 4} if "width" in SMALL[name] else {}
    dims, options = {"speech": 3, "text": 2}, SMALL[name] | tiny | EXACT.get(name, {})
    options |= {"dropout": 0.0}
    head = build_head(name, dims, N_CLASSES, {"speech": 2, "text": 1}, **options).double()
    features, lengths = collate(utterances(head, [[3, 2], [1, 2], [2, 0]]), 1, 0.0)
    inputs = [x.double().requires_grad_() for x in features.values()]
    labels = torch.tensor([0, 3, 1])

    def loss(*x: Tensor) -> Tensor:
        out = head(dict(zip(dims, x, strict=True)), lengths, labels)
        assert out.loss is not None
        return out.loss

    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)


@every_head
@every_count
def test_gradients_are_the_same_with_any_padding(name: str, count: int) -> None:
    gradients = []
    for extra, padding in [(0, 0.0), (4, math.nan)]:
        head = small(name, count, dropout=0.0)
        features, lengths = collate(
            utterances(head, [[3, 2, 4], [1, 5, 2], [6, 1, 1]]), extra, padding
        )
        loss = head(features, lengths, torch.tensor([0, 1, 3])).loss
        assert loss is not None
        loss.backward()
        gradients.append({k: p.grad for k, p in head.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


@every_head
def test_every_parameter_receives_a_gradient(name: str) -> None:
    head = small(name, 3, dropout=0.1)
    # With dialogues of one utterance, the layers that read a dialogue receive no gradient.
    dialogues = Dialogues(
        torch.tensor([0, 0, 0, 1, 1]), torch.tensor([3, 3, 3, 2, 2]), torch.tensor([0, 1, 0, 0, 0])
    )
    loss = head(*batch(head), *([dialogues] if head.reads_dialogues else [])).loss
    assert loss is not None
    loss.backward()
    untrained = [k for k, p in head.named_parameters() if p.grad is None or not p.grad.any()]
    assert untrained == []


@every_head
@pytest.mark.parametrize("kind", ["length one", "one utterance", "all equal", "all zero"])
def test_losses_and_gradients_are_finite_in_edge_cases(name: str, kind: str) -> None:
    head = small(name, 3, dropout=0.1)
    lengths = {"one utterance": [[4, 2, 3]], "length one": [[1, 1, 1]] * 3}.get(
        kind, [[4, 2, 3]] * 3
    )
    features, n = collate(utterances(head, lengths))
    if kind.startswith("all"):
        value = 0.0 if kind == "all zero" else 0.5
        features = {m: torch.full_like(x, value) for m, x in features.items()}
    out = head(features, n, torch.zeros(len(lengths), dtype=torch.int64))
    assert out.loss is not None
    out.loss.backward()
    assert torch.isfinite(out.loss)
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


@every_head
@every_count
def test_training_fits_a_few_utterances(name: str, count: int) -> None:
    torch.manual_seed(1)
    dims = dict.fromkeys(list(DIMS)[:count], 48)
    wide: dict[str, dict[str, Any]] = {"hbf": {"width": 32, "projection": 16}}
    wide |= {"bottleneck": {"width": 32}}
    wide |= dict.fromkeys(("mgcma", "distribution", "token", "instance"), ALIGNED | {"width": 32})
    wide |= {"hbaf": {"width": 32}, "query": {"width": 32, "masking": 0.0}}
    options = {"dropout": 0.0} | wide.get(name, {})
    head = build_head(name, dims, N_CLASSES, dict.fromkeys(dims, 3), **options)
    rows = utterances(head, [[1 + (i + j) % 3 for j in range(3)] for i in range(32)])
    features, lengths = collate(rows)
    labels = torch.randint(N_CLASSES, (32,))
    adam = torch.optim.Adam(head.parameters(), 5e-3)
    for _ in range(150):
        out: HeadOutput = head(features, lengths, labels)
        if torch.equal(out.logits.argmax(1), labels):
            break  # fitted
        adam.zero_grad()
        assert out.loss is not None
        out.loss.backward()
        adam.step()
    assert torch.equal(head(features, lengths).logits.argmax(1), labels)


@every_head
def test_the_option_dropout_reaches_every_dropout(name: str) -> None:
    head = small(name, 2, dropout=0.35)
    rates = [m.p for m in head.modules() if isinstance(m, nn.Dropout)]
    # A GRU has an attribute ``dropout`` too, between its layers; ours have one layer.
    others = [vars(m) for m in head.modules() if not isinstance(m, nn.RNNBase)]
    rates += [own["dropout"] for own in others if "dropout" in own]
    assert set(rates) == {0.35}


@every_head
def test_half_features_are_cast_to_the_parameters(name: str) -> None:
    head = small(name, 2).eval()
    features, lengths, labels = batch(head)
    half = {m: x.half() for m, x in features.items()}
    out = head(half, lengths, labels)
    exact = head({m: x.float() for m, x in half.items()}, lengths, labels)
    assert out.logits.dtype == torch.float32
    assert torch.equal(out.logits, exact.logits)
    assert head.double()(half, lengths).logits.dtype == torch.float64


@every_head
def test_a_batch_is_not_changed(name: str) -> None:
    head = small(name, 2)
    features, lengths, labels = batch(head)
    copies = {m: x.clone() for m, x in features.items()}
    head(features, lengths, labels)
    for m, x in features.items():
        torch.testing.assert_close(x, copies[m], equal_nan=True, rtol=0, atol=0)


@every_head
def test_without_labels_there_is_no_loss(name: str) -> None:
    head = small(name, 2)
    features, lengths, _ = batch(head)
    out = head(features, lengths)
    assert out.loss is None
    assert out.terms == {}


@every_head
@pytest.mark.parametrize("training", [True, False])
def test_the_loss_is_a_weighted_sum_of_its_terms(name: str, training: bool) -> None:
    head = small(name, 3, dropout=0.1).double().train(training)
    outs = [head(*batch(head, seed=seed)) for seed in range(12)]
    terms = torch.stack([torch.stack(list(out.terms.values())) for out in outs])
    loss = torch.stack([out.loss.detach() for out in outs if out.loss is not None])
    weights = torch.linalg.lstsq(terms, loss.unsqueeze(1)).solution.flatten()
    # The weights are the same for all batches.
    torch.testing.assert_close(terms @ weights, loss)
    by_name = dict(zip(outs[0].terms, weights.tolist(), strict=True))
    assert by_name.pop("cross_entropy") == pytest.approx(1)
    assert all(weight > 0 for weight in by_name.values())
    assert not any(v.requires_grad for out in outs for v in out.terms.values())
    log_p = outs[0].logits.log_softmax(1)
    slow = -torch.stack([log_p[i, i % N_CLASSES] for i in range(5)]).mean()
    torch.testing.assert_close(outs[0].terms["cross_entropy"], slow.detach())


@every_head
@every_count
def test_saves_and_loads(name: str, count: int, tmp_path: Path) -> None:
    head = small(name, count).eval()
    save_model(head, str(tmp_path / "head.safetensors"))
    torch.manual_seed(9)
    twin = build_head(name, head.dims, N_CLASSES, head.n_layers, **SMALL[name]).eval()
    features, lengths, _ = batch(head)
    assert not torch.equal(twin(features, lengths).logits, head(features, lengths).logits)
    load_model(twin, tmp_path / "head.safetensors", strict=True)
    assert torch.equal(twin(features, lengths).logits, head(features, lengths).logits)


@every_head
def test_one_layer_needs_no_layer_axis(name: str) -> None:
    head = build_head(name, {"speech": 24}, N_CLASSES, **SMALL[name]).eval()
    features, lengths = collate(utterances(head, [[3], [5]]))
    flat = {m: x.squeeze(1) for m, x in features.items()}
    assert torch.equal(head(flat, lengths).logits, head(features, lengths).logits)


@every_head
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f, n, y: ({"speech": f["speech"]}, n, y),
            "features must have the modalities speech, text, but has speech",
        ),
        (lambda f, n, y: (f | {"video": f["text"]}, n, y), "but has speech, text, video"),
        (lambda f, n, y: (f, {"text": n["text"]}, y), "lengths must have the modalities"),
        (lambda f, n, y: (f | {"text": f["text"][:, :1]}, n, y), "features of text must be"),
        (lambda f, n, y: (f | {"text": f["text"][..., 1:]}, n, y), "features of text must be"),
        (lambda f, n, y: (f | {"text": f["text"][:, 0]}, n, y), "features of text must be"),
        (lambda f, n, y: (f | {"text": f["text"][:3]}, n, y), "features of text must be"),
        (lambda f, n, y: (f | {"text": f["text"][:, :, :0]}, n, y), "features of text must be"),
        (
            lambda f, n, y: (f | {"text": f["text"].long()}, n, y),
            "features of text must be floating",
        ),
        (
            lambda f, n, y: (f, {m: k * 0 for m, k in n.items()}, y),
            "have no modality: leave them out",
        ),
        (lambda f, n, y: (f, n | {"text": n["text"] * -1}, y), "lengths of text must be in 0"),
        (lambda f, n, y: (f, n | {"text": n["text"] + 9}, y), "lengths of text must be in 0"),
        (lambda f, n, y: (f, n | {"text": n["text"][:3]}, y), "lengths of text must be int64"),
        (lambda f, n, y: (f, n | {"text": n["text"].float()}, y), "lengths of text must be int64"),
        (lambda f, n, y: (f, n, y[:3]), "labels must be int64"),
        (lambda f, n, y: (f, n, y.float()), "labels must be int64"),
        (lambda f, n, y: (f, n, y + N_CLASSES), "labels must be in 0 .. 3"),
        (lambda f, n, y: (f, n, y - 1), "labels must be in 0 .. 3"),
    ],
)
def test_a_wrong_batch_is_an_error(name: str, change: object, message: str) -> None:
    head = evaluated(name, 2)
    with pytest.raises(HeadError, match=message) as error:
        head(*change(*batch(head)))  # type: ignore[operator]
    assert "\n" not in str(error.value)
