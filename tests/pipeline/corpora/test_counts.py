"""Counts of the utterances of a corpus, and their comparison with published counts."""

from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mser.pipeline.corpora import Corpus, PublishedCounts, Utterance
from mser.pipeline.corpora.counts import (
    by_class_set,
    by_field,
    by_label,
    identical_clips,
    published_comparisons,
)

LABELS = ("sad", "angry", "calm", "xxx")
CLASS_SETS = {"2": {"sad": "low", "calm": "low", "angry": "high"}, "1": {"sad": "sad"}}


def utterance(id: str, label: str | None = None, **fields: Any) -> Utterance:
    names = ("audio", "text", "speaker", "session", "dialogue", "turn", "split")
    empty: dict[str, Any] = dict.fromkeys(names)
    return Utterance(**{**empty, "id": id, "label": label, **fields})


def corpus(*labels: str | None, **changes: Any) -> Corpus:
    utterances = [utterance(f"u{n}", label, session=f"s{n % 2}") for n, label in enumerate(labels)]
    made = Corpus("made-up", utterances, LABELS[:3], "official", class_sets=CLASS_SETS)
    return replace(made, **changes)


def test_utterances_are_counted_in_every_class_set() -> None:
    made = corpus("sad", "sad", "calm", "xxx", None)
    assert by_label(made) == {"sad": 2, "angry": 0, "calm": 1, "xxx": 1}
    assert by_class_set(made) == {"2": {"low": 3, "high": 0}, "1": {"sad": 2}}


@given(st.lists(st.sampled_from([*LABELS, None]), max_size=20))
def test_counts_add_up(labels: list[str | None]) -> None:
    made = corpus(*labels)
    assert sum(by_label(made).values()) == len(labels) - labels.count(None)
    for name, merged in CLASS_SETS.items():
        assert sum(by_class_set(made)[name].values()) == sum(map(labels.count, merged))
    for label, count in by_label(made).items():
        assert count == labels.count(label)


def test_the_values_of_a_field_are_counted_in_order_of_appearance_without_none() -> None:
    speakers = ["b", "a", None, "b"]
    utterances = [utterance(str(n), speaker=speaker) for n, speaker in enumerate(speakers)]
    assert list(by_field(utterances, "speaker").items()) == [("b", 2), ("a", 1)]
    assert by_field(utterances, "split") == {}


def test_equal_published_counts_do_not_differ() -> None:
    (comparison,) = published_comparisons(
        corpus(
            "sad", "sad", "xxx", published=(PublishedCounts("P", "label", {"xxx": 1, "sad": 2}),)
        )
    )
    assert comparison.rows == [("xxx", 1, 1), ("sad", 2, 2)]
    assert not comparison.differs


def test_other_published_counts_differ() -> None:
    published = PublishedCounts("P", "label", {"sad": 2, "calm": 1})
    (comparison,) = published_comparisons(corpus("sad", "angry", "angry", published=(published,)))
    assert comparison.rows == [("sad", 2, 1), ("calm", 1, 0), ("angry", 0, 2)]
    assert comparison.differs


def test_published_counts_may_be_those_of_a_class_set() -> None:
    published = (
        PublishedCounts("P", "label", {"high": 1, "low": 2}, "2"),
        PublishedCounts("P", "session", {"s0": 2, "s1": 1}, "2"),
        PublishedCounts("P", "session", {"s0": 3, "s1": 2}),
    )
    compared = published_comparisons(
        corpus("sad", "angry", "calm", "xxx", None, published=published)
    )
    assert [comparison.differs for comparison in compared] == [False, False, False]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["sad", "calm", None]))))
def test_identical_clips_are_those_with_one_hash_and_several_labels(
    clips: list[tuple[str, str | None]],
) -> None:
    utterances = [utterance(str(n), label) for n, (_, label) in enumerate(clips)]
    hashes = {str(n): content for n, (content, _) in enumerate(clips)}
    groups = identical_clips(utterances, hashes)
    for group in groups:
        assert len({hashes[member.id] for member in group}) == 1
        assert len({member.label for member in group}) > 1
    labels = {content: {label for other, label in clips if other == content} for content in "abc"}
    in_groups = Counter(member.id for group in groups for member in group)
    assert in_groups == Counter(id for id, content in hashes.items() if len(labels[content]) > 1)


def test_a_clip_without_a_hash_is_in_no_group() -> None:
    assert identical_clips([utterance("a", "sad"), utterance("b", "calm")], {}) == []
