"""Changed utterances are extracted once, by whatever clock the older features were written."""

import time
from pathlib import Path

import pytest

from mser.cache import FeatureCache, collect_garbage
from mser.pipeline.corpora import load_corpus
from mser.tests.support.extract_runs import assert_all_direct, ids_of, run, shards
from mser.tests.support.meld_tree import IDS, ROWS, TEXT_IDS, write_tables

DAY = 86_400.0
CHANGED = 5


@pytest.mark.parametrize(("first", "second"), [(1, 0), (0, -1)])
def test_changed_texts_are_extracted_once_if_the_clock_was_wrong(
    meld: Path,
    encoders: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: int,
    second: int,
) -> None:
    """The clock of one of the two runs is a day ahead or behind."""
    right, text, cache = time.time, {"text": encoders["text"]}, tmp_path / "cache"
    monkeypatch.setattr(time, "time", lambda: right() + first * DAY)
    run(meld, cache, text, shard_mib=0.001)  # a shard for each text
    old = shards(cache)
    monkeypatch.setattr(time, "time", lambda: right() + second * DAY)
    new = [(*row[:3], f"New text {n}.", *row[4:]) for n, row in enumerate(ROWS[:CHANGED])]
    write_tables(meld, [*new, *ROWS[CHANGED:]])

    assert run(meld, cache, text, shard_mib=0.001).modalities[0].new == CHANGED
    corpus, left_out = load_corpus("meld", meld), {"text": IDS - TEXT_IDS}
    assert_all_direct(cache, corpus, text, "meld", left_out)
    again = run(meld, cache, text).modalities[0]
    assert (again.new, again.pending) == (0, 0)
    replaced = {
        shard for shard in old if set(ids_of(shard)) <= {u.id for u in corpus.utterances[:CHANGED]}
    }
    collect_garbage(FeatureCache(cache), delete=True, minimum_age=-10 * DAY)
    assert len(replaced) == CHANGED
    assert not replaced & set(shards(cache))
    assert_all_direct(cache, corpus, text, "meld", left_out)
    assert run(meld, cache, text).modalities[0].new == 0
