"""``hbaf``: dialogues, absent modalities, terms of the loss, dropout, layers and options."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mser.heads import HeadError, build_head
from mser.heads.dialogues import Dialogues
from mser.heads.hbaf.audio_context import AudioContextNetwork
from mser.heads.hbaf.head import HBAF
from mser.heads.modules.contrastive import info_nce, relation_distance
from mser.heads.modules.masks import length_mask
from mser.tests.support.slow_layers import assert_dropout, double

DIMS = {"speech": 6, "text": 5, "vision": 4}
N_CLASSES = 3
seeds = st.integers(0, 2**31)


def small(count: int = 2, **options: Any) -> HBAF:
    torch.manual_seed(0)
    dims = dict(list(DIMS.items())[:count])
    head = build_head("hbaf", dims, N_CLASSES, **({"width": 8} | options))
    assert isinstance(head, HBAF)
    return head.eval()


Batch = tuple[dict[str, Tensor], dict[str, Tensor]]


def batch(lengths: list[tuple[int, ...]], seed: int = 0) -> Batch:
    n = dict(zip(DIMS, torch.tensor(lengths).T.contiguous(), strict=False))
    return {m: double(seed + i, len(lengths), 5, DIMS[m]).float() for i, m in enumerate(n)}, n


def part(given: Batch, rows: Any) -> Batch:
    features, lengths = given
    return {m: x[rows] for m, x in features.items()}, {m: n[rows] for m, n in lengths.items()}


def dialogues(*sizes: int, context: list[int] | None = None) -> Dialogues:
    """Dialogues in which two speakers alternate; ``context`` are turns that are only context."""
    sized = torch.tensor(sizes)
    only = torch.zeros(sum(sizes), dtype=torch.bool)
    only[context or []] = True
    return Dialogues(
        torch.arange(len(sizes)).repeat_interleave(sized),
        sized.repeat_interleave(sized),
        torch.cat([torch.arange(size) % 2 for size in sizes]),
        only,
    )


some_lengths = st.tuples(*[st.integers(0, 5)] * 3).filter(any)
many = st.lists(st.lists(some_lengths, min_size=1, max_size=4), min_size=1, max_size=4)


@given(many, seeds)
@settings(max_examples=25, deadline=None)
def test_the_logits_of_a_dialogue_do_not_depend_on_the_batch(
    rows: list[list[tuple[int, ...]]], seed: int
) -> None:
    head = small(3)
    given = batch([row for dialogue in rows for row in dialogue], seed)
    sizes = [len(dialogue) for dialogue in rows]
    together = head(*given, dialogues=dialogues(*sizes)).logits
    assert torch.isfinite(together).all()
    start = 0
    for size in sizes:
        rows_of_dialogue = slice(start, start + size)
        alone = head(*part(given, rows_of_dialogue), dialogues=dialogues(size)).logits
        torch.testing.assert_close(alone, together[rows_of_dialogue], atol=1e-5, rtol=0)
        start += size
    features, lengths = given
    for m, x in features.items():
        x[~length_mask(lengths[m], 5)] = math.nan
    torch.testing.assert_close(head(*given, dialogues=dialogues(*sizes)).logits, together)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_logits_depend_on_all_utterances_of_the_dialogue_and_on_no_other(count: int) -> None:
    head = small(count)
    given = batch([(3, 2, 4)[:count]] * 5)
    logits = head(*given, dialogues=dialogues(3, 2)).logits
    for changed in range(5):
        other, _ = part(given, slice(None))
        other = {m: x.index_fill(0, torch.tensor([changed]), 0.3) for m, x in other.items()}
        new = head(other, given[1], dialogues=dialogues(3, 2)).logits
        moved = ((new - logits).abs().amax(dim=1) > 1e-7).tolist()
        assert moved == [(i < 3) == (changed < 3) for i in range(5)]


@pytest.mark.parametrize(
    ("options", "depends_on_order", "depends_on_others"),
    [
        ({}, True, True),
        ({"fusion": False}, True, True),
        ({"context": False}, True, True),
        ({"text_context": False}, True, True),
        ({"context": False, "text_context": False}, False, True),
        ({"context": False, "fusion": False}, True, True),
        ({"text_context": False, "fusion": False}, True, True),
        ({"context": False, "text_context": False, "fusion": False}, False, False),
    ],
)
def test_which_parts_read_the_other_turns(
    options: dict[str, bool], depends_on_order: bool, depends_on_others: bool
) -> None:
    head = small(**options)
    given = batch([(3, 2), (5, 4), (1, 1), (2, 5)])
    logits = head(*given, dialogues=dialogues(4)).logits
    order = torch.tensor([2, 0, 3, 1])
    reordered = head(*part(given, order), dialogues=dialogues(4)).logits
    assert torch.allclose(reordered, logits[order], atol=1e-5) is not depends_on_order
    assert torch.allclose(head(*given).logits, logits, atol=1e-5) is not depends_on_others
    each = head(*given, dialogues=Dialogues.alone(4)).logits
    assert torch.equal(head(*given).logits, each)


@pytest.mark.parametrize(
    ("number", "size", "message"),
    [
        ([0, 0, 1], [3, 3, 1], "a dialogue of 3 utterances is cut: the batch has 2 of them"),
        ([0, 1, 0], [2, 1, 2], "must be adjacent"),
        ([0, 0], [2, 2], "dialogues must have 3 utterances, not 2"),
        ([0.0, 0.0, 1.0], [2, 2, 1], "number of dialogues must be int64"),
    ],
)
def test_wrong_dialogues_are_errors(number: list[int], size: list[int], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        small()(*batch([(3, 2)] * 3), dialogues=Dialogues(torch.tensor(number), torch.tensor(size)))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "speaker",
            [0, 1],
            r"speaker of dialogues must be int64 \(B,\), not \(2,\) of torch.int64",
        ),
        ("speaker", [0.0, 1.0, 0.0], "speaker of dialogues must be int64"),
        (
            "context",
            [0, 1, 0],
            r"context of dialogues must be bool \(B,\), not \(3,\) of torch.int64",
        ),
        ("context", [True, True, True], "all utterances of the batch are only context"),
    ],
)
def test_wrong_speakers_and_context_are_errors(field: str, value: list[Any], message: str) -> None:
    given = dialogues(2, 1)._replace(**{field: torch.tensor(value)})
    with pytest.raises(HeadError, match=message):
        small()(*batch([(3, 2)] * 3), torch.tensor([0, 1, 2]), given)


@torch.no_grad()
def test_a_turn_that_is_only_context_is_read_and_is_in_no_loss() -> None:
    given = batch([(3, 2, 4), (5, 4, 1), (1, 1, 2), (2, 5, 3), (4, 3, 1)])
    labels, talk = torch.tensor([0, 1, 2, 0, 1]), dialogues(3, 2)
    head = small(3)
    out = head(*given, labels, talk._replace(context=torch.tensor([0, 1, 0, 0, 1]).bool()))
    assert torch.equal(out.logits, head(*given, dialogues=talk).logits)
    other = head(
        *given, labels.index_fill(0, torch.tensor([1, 4]), 2), dialogues(3, 2, context=[1, 4])
    )
    assert other.loss is not None
    assert other.loss == out.loss  # the label of such a turn is not used
    # The terms, from the rows that have a label.
    rows = torch.tensor([0, 2, 3])
    x = head.represent(*head.inputs(*given), given[1], talk)
    log_p = out.logits.log_softmax(dim=1)
    ce = -sum(float(log_p[i, labels[i]]) for i in rows) / 3
    assert float(out.terms["cross_entropy"]) == pytest.approx(ce, rel=1e-5)
    uni_modal = -sum(
        float(head.votes[m](x[m][i]).log_softmax(0)[labels[i]]) / 3 for m in DIMS for i in rows
    )
    assert float(out.terms["uni_modal"]) == pytest.approx(uni_modal, rel=1e-5)
    pairs = [("speech", "text"), ("speech", "vision"), ("text", "vision")]
    absolute = sum(info_nce(x[m][rows], x[n][rows], 0.07).item() / 3 for m, n in pairs)
    relative = sum(relation_distance(x[m][rows], x[n][rows]).item() / 3 for m, n in pairs)
    assert float(out.terms["absolute"]) == pytest.approx(absolute, rel=1e-5)
    assert float(out.terms["relative"]) == pytest.approx(relative, rel=1e-4)
    # Without the turn, the others have other logits.
    kept = head(*part(given, rows), dialogues=dialogues(2, 1)).logits
    assert ((kept - out.logits[rows]).abs().amax(dim=1) > 1e-6).all()


def test_every_modality_reads_the_order_and_the_speakers_of_its_turns() -> None:
    given = batch([(3, 2), (5, 4), (1, 1), (2, 5)])
    other = dialogues(4)._replace(speaker=torch.tensor([0, 1, 1, 1]))
    for options, dependent in (
        ({}, {"speech", "text"}),
        ({"context": False}, {"text"}),
        ({"text_context": False}, {"speech"}),
        ({"speakers": False}, set()),
    ):
        head = small(**options)
        before, after = (
            head.represent(*head.inputs(*given), given[1], talk) for talk in (dialogues(4), other)
        )
        assert {m for m in before if not torch.equal(before[m], after[m])} == dependent


@pytest.mark.parametrize("missing", ["speech", "text"])
@pytest.mark.parametrize("kind", ["some", "all", "a dialogue"])
def test_an_absent_modality_is_neither_read_nor_in_the_loss(missing: str, kind: str) -> None:
    head = small().train()
    head.dropout.p = head.projections.dropout = 0.0
    given = batch([(3, 2)] * 5)
    lacking = {"some": [1, 3], "all": [0, 1, 2, 3, 4], "a dialogue": [0, 1, 2]}[kind]
    given[1][missing][lacking] = 0
    features = {m: x.requires_grad_() for m, x in given[0].items()}
    labels = torch.tensor([0, 1, 2, 0, 1])
    out = head(features, given[1], labels, dialogues(3, 2))
    assert out.loss is not None
    assert torch.isfinite(out.loss)
    out.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)
    gradient = features[missing].grad
    assert gradient is not None
    assert not gradient[lacking].any()
    if kind == "all":
        assert {k: float(out.terms[k]) for k in ("absolute", "relative")} == {
            "absolute": 0,
            "relative": 0,
        }
    else:
        assert gradient.any()
        assert float(out.terms["absolute"]) > 0


@pytest.mark.parametrize("options", [{}, {"fusion": False}, {"context": False}])
def test_an_absent_modality_does_not_reach_the_classifier(options: dict[str, bool]) -> None:
    head = small(**options)
    given = batch([(3, 2), (0, 4), (5, 1)])
    before = head(*given, dialogues=dialogues(3)).logits
    head.classifier.weight.data[:, :8] *= 2  # the columns for speech
    after = head(*given, dialogues=dialogues(3)).logits
    assert (after == before).all(dim=1).tolist() == [False, True, False]


def test_the_terms_follow_their_formulas() -> None:
    head = small(3)
    given = batch([(3, 2, 0), (0, 4, 1), (5, 0, 2), (1, 1, 1)])
    labels = torch.tensor([2, 0, 1, 1])
    terms = head(*given, labels, dialogues(3, 1)).terms
    x = head.represent(*head.inputs(*given), given[1], dialogues(3, 1))
    present = {m: [i for i in range(4) if given[1][m][i]] for m in DIMS}
    uni_modal = 0.0
    for m in DIMS:
        scores = head.votes[m](x[m]).log_softmax(dim=1).detach()
        uni_modal -= sum(float(scores[i, labels[i]]) for i in present[m]) / len(present[m])
    assert math.isclose(float(terms["uni_modal"]), uni_modal, rel_tol=1e-5)
    absolute = relative = 0.0
    for m, n in [("speech", "text"), ("speech", "vision"), ("text", "vision")]:
        both = [i for i in present[m] if i in present[n]]
        absolute += info_nce(x[m][both], x[n][both], 0.07).item() / 3
        relative += relation_distance(x[m][both], x[n][both]).item() / 3
    assert math.isclose(float(terms["absolute"]), absolute, rel_tol=1e-5)
    assert math.isclose(float(terms["relative"]), relative, rel_tol=1e-4)


@pytest.mark.parametrize(
    ("count", "options", "names"),
    [
        (2, {}, {"uni_modal", "absolute", "relative"}),
        (1, {}, {"uni_modal"}),
        (2, {"uni_modal_weight": 0}, {"absolute", "relative"}),
        (2, {"absolute_weight": 0}, {"uni_modal", "relative"}),
        (2, {"relative_weight": 0}, {"uni_modal", "absolute"}),
    ],
)
def test_a_weight_of_0_switches_a_term_off(
    count: int, options: dict[str, Any], names: set[str]
) -> None:
    out = small(count, **options)(*batch([(3, 2)[:count]] * 2), torch.tensor([0, 1]))
    assert set(out.terms) == names | {"cross_entropy"}


def test_the_classifiers_read_their_input_under_dropout() -> None:
    rate, width = 0.3, 8
    torch.manual_seed(0)
    head = HBAF({"speech": 6, "text": 5}, 2 * width, width=width, dropout=rate)
    head.projections.dropout = 0.0  # only the dropout of the classifiers is random
    head.classifier.weight.data = torch.eye(2 * width)  # the logits are the input of the classifier
    head.classifier.bias.data.zero_()
    given, labels = batch([(3, 2), (5, 4), (1, 1)]), torch.tensor([0, 1, 2])
    x = head.represent(*head.inputs(*given), given[1], Dialogues.alone(3))
    fused = head.fuse(x, dict.fromkeys(x, torch.ones(3, dtype=torch.bool)), torch.tensor([1, 1, 1]))
    inputs: dict[str, list[Tensor]] = {m: [] for m in x}
    for m, classify in head.votes.items():
        classify.register_forward_pre_hook(lambda _, given, m=m: inputs[m].append(given[0]))
    logits = [head.train()(*given, labels).logits for _ in range(60)]
    assert_dropout(logits, torch.cat(list(fused.values()), dim=1), rate)
    for m in x:
        assert_dropout(inputs[m], x[m], rate)


def test_one_utterance_has_no_contrast() -> None:
    terms = small(3)(*batch([(3, 2, 1)]), torch.tensor([1])).terms
    assert math.isclose(float(terms["absolute"]), 0, abs_tol=1e-12)
    assert math.isclose(float(terms["relative"]), 0, abs_tol=1e-12)


ALL = tuple(range(13))


@pytest.mark.parametrize(
    ("dims", "n_layers", "layer", "reads"),
    [
        (DIMS, 13, None, {"speech": (0, 1, 2, 3)} | dict.fromkeys(("text", "vision"), ALL)),
        (DIMS, 3, None, {"speech": (0, 1, 2), "text": (0, 1, 2), "vision": (0, 1, 2)}),
        (DIMS, 1, None, {"speech": (0,), "text": (0,), "vision": (0,)}),
        ({"text": 5}, 13, None, {"text": ALL}),
        ({"text": 5}, 13, "last", {"text": (12,)}),
        ({"speech": 6, "text": 5}, 13, {"text": 6}, {"speech": (0, 1, 2, 3), "text": (6,)}),
        ({"speech": 6, "text": 5}, 2, "mix", {"speech": (0, 1), "text": (0, 1)}),
    ],
)
def test_speech_reads_the_first_layers_and_the_others_all_layers(
    dims: dict[str, int], n_layers: int, layer: Any, reads: dict[str, tuple[int, ...]]
) -> None:
    head = build_head("hbaf", dims, N_CLASSES, dict.fromkeys(dims, n_layers), layer, width=8)
    assert head.layers == reads


def test_only_speech_has_the_audio_context_network() -> None:
    assert isinstance(small(2).context, AudioContextNetwork)
    assert small(2, context=False).context is None
    dims = {"text": 5, "vision": 4}
    assert build_head("hbaf", dims, N_CLASSES, width=8).context is None
    without = build_head("hbaf", dims, N_CLASSES, width=8, text_context=False)
    assert not any(isinstance(module, nn.GRU) for module in without.modules())


def test_the_weights_of_older_runs_keep_their_names_and_their_order() -> None:
    """The saved state of an optimizer numbers the weights."""
    former = small(text_context=False, speakers=False).state_dict()
    now = small().state_dict()
    assert list(former) == [name for name in now if name in former]
    assert list(former)[-1] == "classifier.bias"
    new = [name for name in now if name not in former]
    recurrent = ("context.frames", "context.dialogue")
    assert {f"{name}.gru.weight_hh_l0_reverse" for name in recurrent} <= set(former)
    assert {"context.norm.weight", "poolings.text.scores.0.weight", "votes.text.bias"} <= set(
        former
    )
    assert {name.partition(".")[0] for name in new} == {"context", "turn_contexts"}
    assert all(".speaker." in name for name in new if name.startswith("context."))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 7}, "width must be even"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"uni_modal_weight": -1.0}, "the weight of uni_modal must be finite and at least 0"),
        ({"relative_weight": math.nan}, "the weight of relative must be finite and at least 0"),
        ({"context": 1}, "hbaf option 'context' must be of type bool"),
    ],
)
def test_wrong_options_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        build_head("hbaf", DIMS, N_CLASSES, **options)
