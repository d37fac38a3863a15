"""The key of an entry changes if and only if the numbers do."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mser.cache import digest
from mser.tests.support.cache_entries import spec


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": {"weights": "abc", "rate": 8000}},
        {"layers": (0, 1)},
        {"layers": (2, 1, 0)},
        {"dim": 5},
        {"dtype": "float32"},
        {"modality": "text"},
    ],
)
def test_a_change_of_the_numbers_changes_the_key(changes: dict[str, Any]) -> None:
    assert spec(**changes).key != spec().key


def test_a_name_does_not_change_the_key() -> None:
    assert spec(encoder="another name", dataset="another").key == spec().key


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcdé"), inner),
    max_leaves=8,
)


def turned(value: Any) -> Any:
    """The same JSON value with the keys of each object in reverse."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(item) for item in value] if isinstance(value, list) else value


@given(JSON)
def test_a_digest_does_not_depend_on_the_order_of_keys(value: Any) -> None:
    assert digest(turned(value)) == digest(value)
    assert digest([value]) != digest(value)
    assert len(digest(value)) == 12


def test_a_digest_depends_on_the_order_of_a_list() -> None:
    assert digest([1, 2]) != digest([2, 1])
