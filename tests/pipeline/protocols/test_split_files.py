"""Split files: each form, the matching of names, notes, and leaks."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mser.pipeline.corpora import Utterance
from mser.pipeline.errors import PipelineError
from mser.pipeline.protocols.folds import Fold, Splits
from mser.pipeline.protocols.leakage import check_leakage
from mser.pipeline.protocols.protocols import split_corpus
from mser.tests.support.small_corpora import (
    actors,
    changed,
    column,
    dialogues,
    ids,
    make_folds,
    parts,
    sessions,
)

PARTS = ("train", "validation", "test")


def by_file(path: Path, corpus: Sequence[Utterance]) -> Splits:
    splits = split_corpus(corpus, f"file:{path}")
    check_leakage(splits.folds, splits.disjoint_columns)
    return splits


def write_folds(path: Path, folds: Iterable[Fold]) -> Path:
    """Write folds as a run folder does."""
    rows = [
        {"fold": fold.name} | {part: [u.id for u in fold.part(part)] for part in PARTS}
        for fold in folds
    ]
    path.write_text(json.dumps({"folds": rows, "excluded": {"other": "no label"}}))
    return path


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix in (".csv", ".tsv"):
        separator = "," if path.suffix == ".csv" else "\t"
        lines = [
            separator.join(map(str, cells)) for cells in (rows[0], *(row.values() for row in rows))
        ]
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def clips(corpus: Sequence[Utterance]) -> list[Utterance]:
    """The same corpus with clips in the layout of IEMOCAP."""
    return [replace(u, audio=Path(f"wav/{u.dialogue}/{u.id}.wav")) for u in corpus]


def path_of(utterance: Utterance) -> str:
    return f"Session1/sentences/{utterance.audio}"


# Forms --------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(2, 5), min_size=2, max_size=4), min_size=3, max_size=4),
    st.sampled_from(["leave-one-session-out", "leave-one-speaker-out", "group-folds:dialogue:3"]),
)
def test_the_folds_json_of_a_run_gives_the_same_folds(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[list[int]], protocol: str
) -> None:
    corpus = sessions(*sizes)
    folds = make_folds(corpus, protocol)
    path = write_folds(tmp_path_factory.mktemp("run") / "folds.json", folds)
    splits = by_file(path, list(reversed(corpus)))
    assert list(splits.folds) == folds
    assert (splits.notes, splits.left_out) == ((), {})


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_table_of_ids_folds_and_parts(tmp_path: Path, suffix: str) -> None:
    corpus = sessions([3] * 4, [3] * 4)
    folds = make_folds(corpus, "leave-one-session-out")
    rows = [
        {"Part": {"validation": "dev"}.get(part, part), "id": u.id, "fold": number, "note": "x"}
        for number, fold in enumerate(folds, 9)  # so that 10 must come after 9
        for part in PARTS
        for u in fold.part(part)
    ]
    splits = by_file(write_table(tmp_path / f"mine{suffix}", rows[::-1]), corpus)
    assert [fold.name for fold in splits.folds] == ["9", "10"]
    for fold, same in zip(splits.folds, folds, strict=True):
        assert [ids(part) for part in parts(fold)] == [ids(part) for part in parts(same)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_list_for_cross_validation(tmp_path: Path, suffix: str) -> None:
    corpus = dialogues([3] * 12)
    rows = [{"id": u.id, "fold": int(str(u.dialogue)[3:]) % 3} for u in corpus]
    splits = by_file(write_table(tmp_path / f"mine{suffix}", rows), corpus)
    assert [fold.name for fold in splits.folds] == ["0", "1", "2"]
    for fold in splits.folds:
        assert ids(fold.test) == {row["id"] for row in rows if str(row["fold"]) == fold.name}
        assert ids(utterance for part in parts(fold) for utterance in part) == ids(corpus)
        assert not column(fold.train, "dialogue") & column(fold.validation, "dialogue")
    assert splits.notes == (
        f"mine{suffix} has no validation part: it was cut from the training part by whole "
        "dialogues",
    )


def test_a_table_without_folds_is_one_fold(tmp_path: Path) -> None:
    corpus = dialogues([3] * 6)
    rows = [{"id": u.id, "part": PARTS[n // 6]} for n, u in enumerate(corpus)]
    (fold,) = by_file(write_table(tmp_path / "mine.csv", rows), corpus).folds
    assert fold == Fold("mine", tuple(corpus[:6]), tuple(corpus[6:12]), tuple(corpus[12:]))


def emobox_row(utterance: Utterance) -> dict[str, Any]:
    return {
        **{"key": f"iemocap-{utterance.id}", "dataset": "iemocap"},
        "wav": f"downloads/{path_of(utterance)}",
        **{"type": "raw", "sample_rate": 16000, "num_frame": 70312.0, "task": "category"},
        **{"length": 4.3945, "emo": "neu", "channel": 1},
    }


def emobox_lines(path: Path, part: Iterable[Utterance]) -> None:
    path.with_suffix(".jsonl").write_text("".join(json.dumps(emobox_row(u)) + "\n" for u in part))


def emobox_json(path: Path, part: Iterable[Utterance]) -> None:
    rows = {row["key"]: {"wav": row["wav"], "emo": "neu"} for row in map(emobox_row, part)}
    path.with_suffix(".json").write_text(json.dumps(rows, indent=4))


@pytest.mark.parametrize("writers", [[emobox_lines], [emobox_json], [emobox_lines, emobox_json]])
def test_lists_of_emobox(
    tmp_path: Path, writers: list[Callable[[Path, Iterable[Utterance]], None]]
) -> None:
    corpus = clips(sessions(*[[2] * 3] * 11))
    for number in range(1, 12):
        folder = tmp_path / "iemocap" / f"fold_{number}"
        folder.mkdir(parents=True)
        test = [utterance for utterance in corpus if utterance.session == f"ses{number}"]
        for write in writers:
            write(folder / f"iemocap_test_fold_{number}", test)
            write(folder / f"iemocap_train_fold_{number}", [u for u in corpus if u not in test])
    (tmp_path / "iemocap" / "label_map.json").write_text('{"hap": "hap"}')
    (tmp_path / "iemocap" / "iemocap.json").write_text("{}")
    splits = by_file(tmp_path / "iemocap", corpus)
    assert [fold.name for fold in splits.folds] == [f"fold_{n}" for n in range(1, 12)]
    for number, fold in enumerate(splits.folds, 1):
        assert column(fold.test, "session") == {f"ses{number}"}
        assert len(fold.train + fold.validation) == len(corpus) - len(fold.test)
    (alone,) = by_file(tmp_path / "iemocap" / "fold_11", corpus).folds
    assert alone == splits.folds[10]


def test_lists_of_emobox_with_a_validation_part(tmp_path: Path) -> None:
    folders = {"train": "train_splits", "validation": "dev_splits_complete", "test": "output"}
    corpus = [
        replace(utterance, audio=Path(f"{folder}/{utterance.id.split('/')[1]}.mp4"), split=split)
        for split, folder in folders.items()
        for utterance in dialogues([2, 3], f"{split}/")
    ]
    folder = tmp_path / "fold_1"
    folder.mkdir()
    for part, name in zip(PARTS, ("train", "valid", "test"), strict=True):
        rows = [{"wav": f"downloads/meld/{u.audio}"} for u in corpus if u.split == part]
        write_table(folder / f"meld_{name}_fold_1.jsonl", rows)
    (fold,) = by_file(tmp_path, corpus).folds
    for part in PARTS:
        assert list(fold.part(part)) == [u for u in corpus if u.split == part]


def s3prl(root: Path, corpus: Sequence[Utterance]) -> Path:
    for session in sorted({str(utterance.session) for utterance in corpus}):
        folder = root / session
        folder.mkdir(parents=True)
        for part in ("train", "test"):
            rows = [
                {"path": path_of(utterance), "label": "neu", "speaker": "Ses01F"}
                for utterance in corpus
                if (utterance.session == session) is (part == "test")
            ]
            content = {"labels": {"neu": 0, "hap": 1, "ang": 2, "sad": 3}, "meta_data": rows}
            (folder / f"{part}_meta_data.json").write_text(json.dumps(content))
    return root


def test_the_folder_meta_data_of_s3prl(tmp_path: Path) -> None:
    corpus = clips(sessions([3] * 4, [3] * 5, [3] * 3))
    splits = by_file(s3prl(tmp_path / "meta_data", corpus), corpus)
    expected = make_folds(corpus, "leave-one-session-out")
    assert list(splits.folds) == expected
    (alone,) = by_file(tmp_path / "meta_data" / "ses2", corpus).folds
    assert alone == expected[1]


# Names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    ["{id}", "{id}.wav", "wav/{id}.flac", "C:\\data\\{id}.wav", "/data/iemocap/{id}"],
)
def test_a_name_may_be_a_file_name_with_the_stem_of_an_id(tmp_path: Path, written: str) -> None:
    corpus = dialogues([2] * 9)
    rows = [{"id": written.format(id=u.id), "part": PARTS[n // 6]} for n, u in enumerate(corpus)]
    (fold,) = by_file(write_table(tmp_path / "mine.jsonl", rows), corpus).folds
    assert [ids(part) for part in parts(fold)] == [ids(corpus[n : n + 6]) for n in (0, 6, 12)]


def test_an_id_with_a_dot_matches_itself(tmp_path: Path) -> None:
    corpus = [replace(u, id=f"v1.{n}") for n, u in enumerate(dialogues([1] * 6))]
    rows = [{"id": u.id, "part": PARTS[n // 2]} for n, u in enumerate(corpus)]
    (fold,) = by_file(write_table(tmp_path / "mine.csv", rows), corpus).folds
    assert [ids(part) for part in parts(fold)] == [ids(corpus[n : n + 2]) for n in (0, 2, 4)]


def test_a_name_of_several_utterances_is_refused(tmp_path: Path) -> None:
    corpus = [u for split in PARTS for u in dialogues([2] * 3, f"{split}/")]
    rows = [{"id": u.id, "part": u.id.split("/")[0]} for u in corpus]
    rows[0]["id"] = "dia0_utt0"
    rows[1]["id"] = "elsewhere/dia0_utt1.wav"
    message = (
        r"2 of 18 names in .*mine.csv match several utterances \(dia0_utt0, elsewhere/"
        r"dia0_utt1.wav\): write ids of the corpus instead, such as train/dia0_utt0"
    )
    with pytest.raises(PipelineError, match=message):
        by_file(write_table(tmp_path / "mine.csv", rows), corpus)


def test_names_that_match_no_utterance_are_listed(tmp_path: Path) -> None:
    corpus = dialogues([2] * 9)
    rows = [{"id": u.id, "part": PARTS[n // 6]} for n, u in enumerate(corpus)]
    rows += [{"id": f"stranger{n}", "part": "test"} for n in range(5)]
    splits = by_file(write_table(tmp_path / "mine.csv", rows), corpus)
    assert splits.notes == (
        "5 of 23 names in mine.csv match no utterance of this corpus (stranger0, stranger1, "
        "stranger2, …)",
    )
    assert len(splits.folds[0].test) == 6


def test_a_file_of_another_corpus_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", [{"id": "x", "part": p} for p in ("train", "test")])
    message = r"none of the 1 names in .*a.csv \(x\) matches an utterance .*\(dia0_utt0, dia0_"
    with pytest.raises(PipelineError, match=message):
        by_file(path, dialogues([2] * 9))


def test_utterances_in_no_part_are_left_out_with_a_reason(tmp_path: Path) -> None:
    corpus = dialogues([2] * 9)
    rows = [{"id": u.id, "part": PARTS[n // 5]} for n, u in enumerate(corpus[:15])]
    splits = by_file(write_table(tmp_path / "mine.csv", rows), corpus)
    assert splits.left_out == {u.id: "in no part of mine.csv" for u in corpus[15:]}
    assert ids(u for part in parts(splits.folds[0]) for u in part) == ids(corpus[:15])


def test_names_of_utterances_that_cannot_be_trained_on_are_listed(tmp_path: Path) -> None:
    corpus = dialogues([2] * 9)
    rows = [{"id": u.id, "part": PARTS[n // 6]} for n, u in enumerate(corpus)]
    path = write_table(tmp_path / "mine.csv", rows)
    splits = split_corpus(corpus[1:], f"file:{path}", corpus)
    assert splits.notes == (
        "1 of 18 names in mine.csv match utterances that cannot be trained on (dia0_utt0)",
    )
    assert splits.left_out == {}
    assert len(splits.folds[0].train) == 5


def test_utterances_that_only_some_folds_contain_are_listed(tmp_path: Path) -> None:
    corpus = sessions([2] * 3, [2] * 3, [2] * 3)
    first, *others = make_folds(corpus, "leave-one-session-out")
    path = write_folds(tmp_path / "folds.json", [replace(first, train=first.train[1:]), *others])
    (note,) = by_file(path, corpus).notes
    assert note == (
        f"1 of the utterances in folds.json are in some folds but not in all ({first.train[0].id})"
    )


# Validation and leaks -----------------------------------------------------------------------------


def test_validation_is_cut_by_speaker_if_the_file_keeps_speakers_apart(tmp_path: Path) -> None:
    corpus = actors([4] * 20)
    rows = [{"id": u.id, "part": "test" if str(u.speaker) > "1015" else "train"} for u in corpus]
    splits = by_file(write_table(tmp_path / "mine.csv", rows), corpus)
    speakers = [column(part, "speaker") for part in parts(splits.folds[0])]
    assert len(set.union(*speakers)) == sum(map(len, speakers)) == 20
    assert "by whole speakers" in splits.notes[0]


def test_a_file_may_share_speakers(tmp_path: Path) -> None:
    corpus = actors([4] * 20)
    rows = [{"id": u.id, "part": "test" if u.id.endswith("0") else "train"} for u in corpus]
    splits = by_file(write_table(tmp_path / "mine.csv", rows), corpus)
    lines = check_leakage(splits.folds, splits.disjoint_columns).lines()
    assert "train and test share 20 speakers (in 20 utterances of the test part)" in lines


@pytest.mark.parametrize("other", ["train", "validation"])
def test_an_utterance_in_two_parts_is_refused(tmp_path: Path, other: str) -> None:
    rows = [{"id": u.id, "part": PARTS[n // 6]} for n, u in enumerate(dialogues([2] * 9))]
    rows += [{"id": "dia8_utt1.wav", "part": other}]
    path = write_table(tmp_path / "mine.csv", rows)
    message = f"fold 'mine' leaks: {other} and test share the id 'dia8_utt1'"
    with pytest.raises(PipelineError, match=message):
        make_folds(dialogues([2] * 9), f"file:{path}")


def test_an_utterance_in_two_folds_of_a_cross_validation_is_refused(tmp_path: Path) -> None:
    corpus = dialogues([2] * 9)
    rows = [{"id": u.id, "fold": n % 3} for n, u in enumerate([*corpus, corpus[1]])]
    with pytest.raises(PipelineError, match="share the id 'dia0_utt1'"):
        by_file(write_table(tmp_path / "mine.csv", rows), corpus)


def test_a_part_without_utterances_of_the_corpus_is_refused(tmp_path: Path) -> None:
    corpus = dialogues([2] * 9)
    rows = [{"id": u.id, "part": "train"} for u in corpus] + [{"id": "x", "part": "test"}]
    with pytest.raises(PipelineError, match="the test part of fold 'mine' is empty"):
        by_file(write_table(tmp_path / "mine.csv", rows), corpus)


def test_the_order_of_the_corpus_does_not_matter(tmp_path: Path) -> None:
    corpus = changed(dialogues([3] * 12), 4, text="x")
    rows = [{"id": u.id, "part": "test" if n < 9 else "train"} for n, u in enumerate(corpus)]
    path = write_table(tmp_path / "mine.csv", rows)
    assert by_file(path, corpus).folds == by_file(path, corpus[::-1]).folds
