"""Whether several trainings of one head are faster as one batched model than one after another.

Fifteen heads (five folds, three seeds) take a step each: one after another, and as one model by
``torch.func.stack_module_state`` and ``vmap``, with the fused AdamW of either. Everything is in
favour of the group: all members have batches of one shape, ``hbf`` drops no false negatives and has
no turns, because both are decisions by the values of a batch, which differ between members.

The processor time of one thread is measured, so that other work on the machine does not matter.
Side by side in two processes, the trainings take half of the wall time on two cores; a group must
do better than 0.5 with two threads, or be clearly below 1 with one.

Run it with ``python benchmarks/grouped.py``.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from mser.benchmarks.results import (
    Measurement,
    Rows,
    RunOptions,
    Table,
    main,
    quartiles,
    ratios,
    shuffled_turns,
)
from mser.heads import Head, build_head

MEMBERS, BATCH, CLASSES = 15, 32, 4
DIMS = {"speech": 64, "text": 64}
LAYERS = {"speech": 5, "text": 5}
FRAMES = {"speech": 60, "text": 12}  # of the demo's utterances, about
HEADS: dict[str, dict[str, Any]] = {
    "linear": {},
    "hbf, width 64": {"width": 64, "mb": False, "false_negatives": "keep"},
}
ALONE, GROUP = "one after another", "one batched model"
NOTE = (
    "Milliseconds of processor time for a step of all fifteen heads, on one thread, with batches "
    f"of {BATCH} **synthetic** utterances; *÷* is the ratio within a round. *Difference* is the "
    "largest difference of a weight after the steps, relative to the largest weight, with dropout "
    "switched off: the two are the same trainings."
)


@dataclass
class Data:
    """A batch for each member; the lengths are those of all members."""

    features: dict[str, Tensor]
    """Modality → (members, B, L, T, D) float32."""
    lengths: dict[str, Tensor]
    """Modality → (B,) int64."""
    labels: Tensor
    """(members, B) int64."""


def data(head: Head) -> Data:
    """Return random batches of the layers that a head reads."""
    random = torch.Generator().manual_seed(0)
    features, lengths = {}, {}
    for name, frames in FRAMES.items():
        shape = (MEMBERS, BATCH, len(head.layers[name]), frames, DIMS[name])
        features[name] = torch.randn(shape, generator=random)
        lengths[name] = torch.randint(frames // 2, frames + 1, (BATCH,), generator=random)
        lengths[name][0] = frames
    return Data(features, lengths, torch.randint(CLASSES, (MEMBERS, BATCH), generator=random))


def heads(name: str, dropout: float) -> list[Head]:
    """Return the members, each with weights of its own."""
    options = HEADS[name] | {"dropout": dropout}
    members = []
    for seed in range(MEMBERS):
        torch.manual_seed(seed)
        head = build_head(name.partition(",")[0], DIMS, CLASSES, LAYERS, **options)
        # The check looks at the values of the labels, which vmap cannot do.
        head.objective.require_targets = lambda *_: None  # type: ignore[method-assign]
        members.append(head.train())
    return members


def alone(members: list[Head], batches: Data) -> Callable[[], None]:
    """Return a function that takes a step with each member, one after another."""
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-3, fused=True) for m in members]

    def step() -> None:
        for number, (member, optimizer) in enumerate(zip(members, optimizers, strict=True)):
            optimizer.zero_grad()
            features = {name: x[number] for name, x in batches.features.items()}
            loss = member(features, batches.lengths, batches.labels[number]).loss
            loss.backward()
            optimizer.step()

    return step


def grouped(members: list[Head], batches: Data) -> tuple[Callable[[], None], dict[str, Tensor]]:
    """Return a function that takes a step with all members at once, and the stacked weights."""
    weights, buffers = stack_module_state(members)  # type: ignore[arg-type]
    skeleton = members[0]
    optimizer = torch.optim.AdamW(list(weights.values()), lr=1e-3, fused=True)

    def loss(own: Any, constant: Any, features: Any, labels: Tensor) -> Tensor:
        found = functional_call(skeleton, (own, constant), (features, batches.lengths, labels))
        total: Tensor = found.loss
        return total

    gradients = vmap(grad_and_value(loss), randomness="different")

    def step() -> None:
        found, _ = gradients(weights, buffers, batches.features, batches.labels)
        for name, weight in weights.items():
            weight.grad = found[name]
        optimizer.step()

    return step, weights


def difference(name: str, batches: Data, steps: int = 3) -> float:
    """Return by how much the weights of the two differ after some steps without dropout."""
    members, same = heads(name, 0.0), heads(name, 0.0)
    one, (group, weights) = alone(members, batches), grouped(same, batches)
    for _ in range(steps):
        one()
        group()
    own = [dict(member.named_parameters()) for member in members]
    largest = max(float(x.detach().abs().max()) for x in weights.values())
    return max(
        float((x[number] - own[number][key]).detach().abs().max()) / largest
        for key, x in weights.items()
        for number in range(MEMBERS)
    )


def milliseconds(step: Callable[[], None]) -> float:
    """Return the processor time of a step of all members."""
    begin = time.process_time()
    step()
    return 1000 * (time.process_time() - begin)


def measure(options: RunOptions) -> Measurement:
    torch.set_num_threads(1)
    rows: Rows = {}
    for name in HEADS:
        batches = data(heads(name, 0.0)[0])
        methods = {
            ALONE: alone(heads(name, 0.1), batches),
            GROUP: grouped(heads(name, 0.1), batches)[0],
        }
        for step in methods.values():
            step()  # allocates memory
        spent: dict[str, list[float]] = {method: [] for method in methods}
        for _, method in shuffled_turns([*methods], options.rounds):
            spent[method].append(milliseconds(methods[method]))
        rows[name] = {
            f"{ALONE}, ms": quartiles(spent[ALONE]),
            f"{GROUP}, ms": quartiles(spent[GROUP]),
            f"{GROUP} ÷ {ALONE}": ratios(spent[GROUP], spent[ALONE]),
            "difference": difference(name, batches),
        }
        options.log(f"{name}: {rows[name]}")
    table = Table("fifteen trainings of a head (synthetic)", rows, NOTE)
    return Measurement([table], {"members": MEMBERS, "threads": 1})


if __name__ == "__main__":
    main("grouped", "Whether trainings of one head are faster as a group.", measure, (7, 2))
