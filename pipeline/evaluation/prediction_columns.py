"""The columns of ``predictions.csv`` for each target: written by a run, read by its evaluation.

Between ``id`` and ``fold`` are the columns of the target over classes:

- ``emotion``: ``label``, ``predicted``, and ``p_CLASS`` for each class;
- ``votes``: the same, with the class that has the most votes as the label (empty if two have), and
  ``votes_CLASS``, the share of the votes;
- ``labels``: ``has_CLASS``, 1 or 0, and ``p_CLASS``;

then ``true_NAME`` and ``predicted_NAME`` for each attribute.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..targets import Targets, Value


def header(targets: Targets) -> list[str]:
    """Return the names of the columns of a target."""
    names = []
    match targets.over_classes:
        case "emotion":
            names = ["label", "predicted", *_of("p", targets.classes)]
        case "votes":
            classes = targets.classes
            names = ["label", "predicted", *_of("p", classes), *_of("votes", classes)]
        case "labels":
            names = [*_of("has", targets.classes), *_of("p", targets.classes)]
    for name in targets.attributes:
        names += [f"true_{name}", f"predicted_{name}"]
    return names


def cells(targets: Targets, utterance: Any, row: Sequence[float]) -> list[Any]:
    """Return the cells of an utterance; ``row`` are the predictions, (outputs,)."""
    value = targets.value(utterance)
    classes = targets.classes
    found = list(row[: targets.n_classes])
    best = classes[max(range(len(found)), key=found.__getitem__)] if found else None
    result: list[Any] = []
    match targets.over_classes:
        case "emotion":
            result = [utterance.label, best, *found]
        case "votes":
            votes = value[: len(classes)]
            decided = votes.count(max(votes)) == 1
            result = [classes[votes.index(max(votes))] if decided else "", best, *found, *votes]
        case "labels":
            result = [*map(int, value[: len(classes)]), *found]
    for name, number in zip(targets.attributes, row[targets.n_classes :], strict=True):
        result += [utterance.attributes[name], number]
    return result


def targets_of(names: Sequence[str]) -> Targets | None:
    """Return the targets of the columns between ``id`` and ``fold``; ``None`` if there are none."""
    classes = tuple(name.removeprefix("p_") for name in names if name.startswith("p_"))
    if names and names[0].startswith("has_"):
        over = ["labels"]
    elif any(name.startswith("votes_") for name in names):
        over = ["votes"]
    else:
        over = ["emotion"] if classes else []
    n_over = len(header(Targets((*over,), classes)))
    attributes = [name.removeprefix("true_") for name in names[n_over::2]]
    targets = Targets((*over, *attributes), classes)
    return targets if targets.names and header(targets) == list(names) else None


def values_of(targets: Targets, row: Mapping[str, str]) -> tuple[Value, Value]:
    """Return the label and the prediction in a row.

    Raises:
        ValueError: a cell has a wrong value.
    """
    label: list[Any] = []
    predicted: list[Any] = []
    if targets.over_classes == "emotion":
        for column, values in (("label", label), ("predicted", predicted)):
            if row[column] not in targets.classes:
                raise ValueError(f"'{row[column]}' is not one of its classes")
            values.append(row[column])
    elif targets.over_classes is not None:
        known = "has" if targets.over_classes == "labels" else "votes"
        label += [_number(row, name) for name in _of(known, targets.classes)]
        predicted += [_number(row, name) for name in _of("p", targets.classes)]
    for name in targets.attributes:
        label.append(_number(row, f"true_{name}"))
        predicted.append(_number(row, f"predicted_{name}"))
    if targets.names == ("emotion",):
        return label[0], predicted[0]
    return tuple(label), tuple(predicted)


def _of(kind: str, classes: Sequence[str]) -> list[str]:
    return [f"{kind}_{name}" for name in classes]


def _number(row: Mapping[str, str], column: str) -> float:
    try:
        return float(row[column])
    except ValueError:
        raise ValueError(f"its {column} is '{row[column]}', which is not a number") from None
