"""The demo on fewer utterances: its files exist, and a second demo repeats no work."""

import json
import re
from functools import partial
from pathlib import Path

import pytest

from mser.pipeline import demo as module
from mser.pipeline.corpora import synthetic
from mser.pipeline.demo import demo
from mser.pipeline.errors import UsageError
from mser.pipeline.extract import ExtractSettings
from mser.tests.support.extract_runs import shards


@pytest.fixture
def small(monkeypatch):
    assert set(module.DEMO_HEADS) == {"linear", "hbf"}
    short = {"linear": ["l2=0.1"], "hbf": ["epochs=1", "head.width=16"]}
    monkeypatch.setattr(module, "DEMO_HEADS", short)
    monkeypatch.setattr(module, "cores", lambda: 1)
    monkeypatch.setattr(module, "ExtractSettings", partial(ExtractSettings, workers=0))


@pytest.mark.usefixtures("small")
def test_the_demo_goes_from_clips_to_scores_and_finds_its_features_again(tmp_path):
    said: list[str] = []
    runs = demo(tmp_path / "demo", said.append, 32)
    text = "\n".join(said)
    assert "32 utterances" in text
    assert "nothing about emotion in real speech" in text
    assert len(runs) == len(module.DEMO_HEADS)
    for run in runs:
        assert json.loads((run.path / "metrics.json").read_text()) == run.metrics
        assert str(run) in said
    places = re.findall(r"^  (?:corpus|encoders|cache|run) +(\S+)$", said[-1], re.MULTILINE)
    assert len(places) == 3 + len(runs)
    assert all(Path(place).is_dir() for place in places)
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert all(run.path.name in page for run in runs)

    before = shards(tmp_path / "demo" / "cache")
    written = {run.path: (run.path / "metrics.json").stat().st_mtime_ns for run in runs}
    again = demo(tmp_path / "demo", said.append, 32)
    assert shards(tmp_path / "demo" / "cache") == before
    assert again == runs  # the same features, settings and seed: the runs are only read
    for path, when in written.items():
        assert (path / "metrics.json").stat().st_mtime_ns == when


@pytest.mark.usefixtures("small")
def test_the_demo_needs_a_folder(tmp_path):
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    with pytest.raises(UsageError, match=r"file' is a file: give --out the name of a folder"):
        demo(tmp_path / "file", print)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "kept"


def test_the_demo_does_not_replace_a_corpus_of_another_size(tmp_path):
    synthetic.make(tmp_path / "corpus", utterances_per_session=2)
    with pytest.raises(UsageError, match="holds 8 utterances, not 64: give another folder"):
        demo(tmp_path, print, 64)


@pytest.mark.parametrize("utterances", [-4, 0, 2, 10])
def test_the_demo_needs_equal_sessions(tmp_path, utterances):
    with pytest.raises(UsageError, match=f"{utterances} utterances .* give a multiple of 4"):
        demo(tmp_path / "out", print, utterances)
    assert not (tmp_path / "out").exists()
