"""Of two copies of an utterance, the one whose writer had seen the other counts."""

import time
from pathlib import Path

import numpy as np
import pytest

from mser.cache import EntryWriter, FeatureCache, UtteranceFeatures, collect_garbage
from mser.cache.clock import time_after
from mser.tests.support.cache_entries import array, spec

DAY = 86_400.0


def write(monkeypatch: pytest.MonkeyPatch, writer: EntryWriter, days: float, value: int) -> str:
    """Write one utterance on a host whose clock is some days ahead."""
    right = time.time
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: right() + days * DAY)
        name = writer.write_shard(0, [UtteranceFeatures("a", f"hash {value}", array(value))])
        writer.publish()
    return name


@pytest.mark.parametrize("days", [[1, 0, 0], [0, -1, -2], [5000, -5000, 0], [1, 0, 1]])
@pytest.mark.parametrize("opened_again", [True, False])
def test_the_copy_that_was_written_last_counts_by_whatever_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: list[float], opened_again: bool
) -> None:
    writer, names = FeatureCache(tmp_path).writer(spec(), {}), []
    for value, ahead in enumerate(days):
        writer = FeatureCache(tmp_path).writer(spec(), {}) if opened_again else writer
        writer = writer.following(writer.stored())
        names.append(write(monkeypatch, writer, ahead, value))
    assert writer.committed() == {"a": "hash 2"}
    np.testing.assert_array_equal(FeatureCache(tmp_path).open("made-up")["a"], array(2))
    writer.publish(rebuild=True)
    np.testing.assert_array_equal(FeatureCache(tmp_path).open("made-up")["a"], array(2))
    deleted = collect_garbage(FeatureCache(tmp_path), delete=True, minimum_age=-20_000 * DAY)
    assert {Path(item.what).name for item in deleted.garbage} == set(names[:2])
    np.testing.assert_array_equal(FeatureCache(tmp_path).open("made-up")["a"], array(2))


def test_a_shard_that_was_converted_keeps_its_place_in_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = FeatureCache(tmp_path).writer(spec(), {})
    old = write(monkeypatch, writer, 1, 1)
    rows = writer.stored().rows_in([old]).to_pylist()
    converted = writer.rewrite_shard(old, rows)
    again = FeatureCache(tmp_path).writer(spec(), {})
    assert again.stored().shards() == [converted]
    newest = write(monkeypatch, again, 0, 2)
    late = again.rewrite_shard(old, rows)
    assert again.stored().shards() == [newest]
    assert late != newest


@pytest.mark.parametrize(
    "seen",
    ["", "2020-01-01T00:00:00.000000+00:00", "2999-12-31T23:59:59.999999+00:00/2020", "3", "zebra",
     "9999-12-31T23:59:59.999999+00:00", "2999-01-01T00:00:00+09:00", "~~"],
)  # fmt: skip
def test_a_time_of_writing_is_later_than_all_that_were_seen(seen: str) -> None:
    first = time_after(seen)
    assert first > seen
    assert time_after(first) > first
    assert time_after(first) > f"{first}/{time_after('')}"
