"""Reading the predictions of a run, and the errors of damaged files."""

import numpy as np
import pytest

from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.evaluation.predictions import read_predictions, regrouped
from mser.tests.support.predicted_runs import CLASSES, LABELS, write_run


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "contains no utterance"),
        ("id,label,predicted,fold,seed\nu,a,a,f,0\n", "its columns are not"),
        ("id,label,predicted,a,p_b,fold,seed\nu,b,b,0,1,f,0\n", "its columns are not"),
        ("id,label,predicted,p_a,fold,seed\n", "contains no utterance"),
        ("id,label,predicted,p_a,p_a,fold,seed\nu,a,a,0,1,f,0\n", "has the column 'p_a' twice"),
        ("id,label,predicted,p_a,fold,seed\nu,a,a,1,f,0\nu,a\n", "line 3: '' is not one of its"),
        ("id,label,predicted,p_a,fold,seed\nu,a,a,1,f,0,1\n", "line 2: it has 7 cells for 6"),
        (
            "id,label,predicted,p_a,fold,seed\nu,a,b,1,f,0\n",
            "line 2: 'b' is not one of its",
        ),
        ("id,label,predicted,p_a,fold,seed\nu,a,a,1,f,x\n", "line 2: the seed 'x' is not a number"),
        ('id,label,predicted,p_a,fold,seed\n"u,a,a,1,f,0\n', "unexpected end of data"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, reason):
    (tmp_path / "predictions.csv").write_text(text, encoding="utf-8")
    with pytest.raises(PipelineError) as caught:
        read_predictions(tmp_path)
    assert not isinstance(caught.value, UsageError)
    assert str(tmp_path / "predictions.csv") in str(caught.value)
    assert reason in str(caught.value)


def test_a_binary_file_is_named(tmp_path):
    (tmp_path / "predictions.csv").write_bytes(b"id,label\xff\xfe\x00")
    with pytest.raises(PipelineError, match=r"predictions\.csv is not UTF-8"):
        read_predictions(tmp_path)


def test_predictions_are_read_as_they_were_written(tmp_path):
    run = read_predictions(write_run(tmp_path / "run", dict.fromkeys((3, 1, 10, 4, 7), LABELS)))
    assert run.targets.classes == CLASSES
    assert {(part.fold, part.seed) for part in run.parts} == {
        (f"fold{fold}", seed) for fold in range(4) for seed in (3, 1, 10, 4, 7)
    }
    assert len(run.parts) == 20
    assert run.columns == {}
    for part in run.parts:
        numbers = [int(id.rpartition("u")[2]) for id in part.ids]
        assert [LABELS[number] for number in numbers] == list(part.labels)
        assert len(part.predicted) == 60


def test_the_groups_of_utterances_are_read(tmp_path):
    dialogues = [f"dia{n // 8}" for n in range(240)]
    run = read_predictions(write_run(tmp_path / "run", {0: LABELS}, dialogues=dialogues))
    assert run.targets.classes == CLASSES
    assert run.columns["dialogue"] == {f"d{n % 7}, u{n}": dialogues[n] for n in range(240)}
    assert set(run.columns["session"].values()) == {"one"}
    assert set(run.columns["speaker"].values()) == {None}
    found = regrouped(run, "dialogue", {"notes": ["a note"], "head": "linear"})
    assert (found["notes"], found["head"]) == (["a note"], "linear")
    assert found["intervals"] == {"by": "dialogue", "number": 30}
    assert found["aggregate"]["wa"]["pooled_ci95"] == [1, 1]


def test_few_groups_have_a_note_also_those_of_one_test_corpus(tmp_path):
    dialogues = [f"dia{n // 80 if n % 2 else n}" for n in range(240)]  # 120 in fold0, 3 in fold1
    run = read_predictions(
        write_run(tmp_path / "run", {0: LABELS[::-1]}, folds=2, dialogues=dialogues)
    )
    tests = {"fold0": {"chance": "kept"}, "fold1": {"chance": "kept"}}
    found = regrouped(run, "dialogue", {"notes": [], "tests": tests})
    assert found["notes"] == ["the intervals draw only 3 dialogues, so they are unreliable (fold1)"]
    for name, number in (("fold0", 120), ("fold1", 3)):
        of_test = found["tests"][name]
        assert of_test["chance"] == "kept"
        assert of_test["intervals"] == {"by": "dialogue", "number": number}
        (part,) = (part for part in run.parts if part.fold == name)
        ids, labels, predicted = part.ids, part.labels, part.predicted
        right = np.array(labels) == np.array(predicted)
        units = [run.columns["dialogue"][id] for id in ids]
        sums = [(right[np.array(units) == unit].sum(), units.count(unit)) for unit in set(units)]
        drawn = np.random.default_rng(1).integers(0, number, (4000, number))
        above, below = np.array(sums).T
        wa = above[drawn].sum(axis=1) / below[drawn].sum(axis=1)
        expected = np.quantile(wa, [0.025, 0.975])
        assert of_test["aggregate"]["wa"]["pooled_ci95"] == pytest.approx(expected, abs=0.02)
