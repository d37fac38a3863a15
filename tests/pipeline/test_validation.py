"""Validation: every error is one sentence with the place, the key, the value and what to give."""

import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Required

import pytest
from typing_extensions import TypedDict

from mser.pipeline.errors import UsageError
from mser.pipeline.validation import (
    AnyPath,
    Count,
    NotNegative,
    Positive,
    Seeds,
    checked,
    file_table,
    one_of,
    read_toml,
    settings,
)

COLOURS = ["red", "green"]


@settings
class Paint:
    colour: Annotated[str, one_of("colour", COLOURS)]
    folder: AnyPath | None = None
    coats: Count = 1
    litres: Positive = 1.5
    thinner: NotNegative = 0.0
    seeds: Seeds = (0,)
    matt: bool = False


@file_table
class Recipe(TypedDict, total=False):
    name: Required[str]
    coats: Count
    colours: list[Annotated[str, one_of("colour", COLOURS)]]
    shares: dict[Annotated[str, one_of("colour", COLOURS)], int | float]


def test_settings_are_a_frozen_dataclass() -> None:
    paint = Paint("red", folder="tins", litres=2, seeds=[1, 2])  # type: ignore[arg-type]
    assert (paint.folder, paint.litres, paint.seeds) == (Path("tins"), 2.0, (1, 2))
    assert replace(paint, coats=2) == Paint("red", Path("tins"), 2, 2.0, seeds=(1, 2))
    assert [one.name for one in fields(paint)][:2] == ["colour", "folder"]
    assert pickle.loads(pickle.dumps(paint)) == paint
    with pytest.raises(AttributeError):
        paint.coats = 3  # type: ignore[misc]
    with pytest.raises(UsageError, match="coats = 0: give 1 or more"):
        replace(paint, coats=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": "gren"}, "unknown colour 'gren': did you mean 'green'"),
        ({"colour": 3}, "colour = 3: give a text in quotation marks"),
        ({"coats": True}, "coats = True: give a whole number"),
        ({"coats": 1.0}, "coats = 1.0: give a whole number"),
        ({"coats": "1"}, "coats = '1': give a whole number"),
        ({"litres": 0}, "litres = 0: give more than 0"),
        ({"litres": float("inf")}, "litres = inf: give a finite number"),
        ({"litres": "1"}, "litres = '1': give a number"),
        ({"thinner": -1}, "thinner = -1: give 0 or more"),
        ({"seeds": [-1]}, "seeds = -1: give 0 or more"),
        ({"seeds": 1}, "seeds = 1: give a list"),
        ({"matt": 1}, "matt = 1: give true or false"),
        ({"coat": 1}, "unknown setting 'coat': did you mean 'coats'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        Paint(**{"colour": "red", **values})
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_a_registry_is_read_when_a_value_is_checked() -> None:
    COLOURS.append("blue")
    try:
        assert Paint("blue").colour == "blue"
    finally:
        COLOURS.remove("blue")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "own.toml: name is missing: add it"),
        ({"name": "a", "coat": 1}, "unknown key in own.toml 'coat': did you mean 'coats'"),
        ({"name": "a", "colours": "red"}, "own.toml: colours = 'red': give a list"),
        ({"name": "a", "colours": ["rad"]}, "unknown colour in own.toml 'rad': did you mean 'red'"),
        ({"name": "a", "shares": {"rad": 1}}, "unknown colour in own.toml 'rad'"),
        ({"name": "a", "shares": 1}, "own.toml: shares = 1: give a table"),
    ],
)
def test_a_wrong_file_is_one_sentence(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        checked(Recipe, content, "own.toml")
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_a_checked_file_holds_its_own_keys_and_values() -> None:
    content = {"name": "a", "shares": {"red": 70}}
    result = checked(Recipe, content, "own.toml")
    assert result == content
    assert isinstance(result["shares"]["red"], int)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file or directory: give a TOML file"), ("a = ", "is not TOML")],
)
def test_a_file_that_is_not_toml(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "own.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=message):
        read_toml(path, "preset")
