"""IEMOCAP's layout with the traps of the release."""

import shutil
from collections import Counter

import pytest

from mser.pipeline.corpora import load_corpus
from mser.pipeline.corpora.iemocap import CLASS_SETS, CLASSES, PUBLISHED, load
from mser.pipeline.errors import PipelineError, UsageError
from mser.tests.support import iemocap_tree
from mser.tests.support.extract_runs import reasons, run
from mser.tests.support.iemocap_tree import (
    ABSENT,
    HEADER,
    IDS,
    ROWS,
    UNLABELLED,
    WITHOUT_TEXT,
    clip,
    dialogue_of,
    label_lines,
    labels,
    save,
    transcript,
)
from mser.tests.support.small_corpora import make_folds

iemocap_original = iemocap_tree.iemocap_original
iemocap = iemocap_tree.iemocap
FIRST = "Ses01F_impro01"
# Session, number of classes, and how many utterances have one of them.
IN_CLASSES = {
    "Ses01": {"4": 5, "6": 6},
    "Ses02": {"4": 2, "6": 2},
    "Ses03": {"4": 3, "6": 3},
    "Ses04": {"4": 2, "6": 2},
    "Ses05": {"4": 3, "6": 4},
}


def by_id(corpus):
    found = {one.id: one for one in corpus.utterances}
    assert len(found) == len(corpus.utterances)
    return found


def note(corpus, about):
    (found,) = (one for one in corpus.notes if about in one)
    return found


# What is an utterance -----------------------------------------------------------------------------


def test_every_consensus_label_is_an_utterance(iemocap_original):
    corpus = load_corpus("iemocap", iemocap_original)
    found = by_id(corpus)
    assert set(found) == IDS
    assert {id: one.label for id, one in found.items()} == {row.id: row.label for row in ROWS}
    assert (corpus.name, corpus.protocol) == ("iemocap", "leave-one-session-out")
    assert {one.split for one in corpus.utterances} == {None}


def test_sessions_dialogues_and_turns_follow_each_other(iemocap_original):
    order = [(one.session, one.dialogue, one.turn) for one in load(iemocap_original).utterances]
    assert order == sorted(order)
    assert {session for session, *_ in order} == {f"Ses0{n}" for n in range(1, 6)}


def test_turns_count_by_time_and_not_by_the_numbers_of_each_speaker(iemocap_original):
    found = by_id(load(iemocap_original)).values()
    turns = [(one.turn, one.id.rpartition("_")[2]) for one in found if one.dialogue == FIRST]
    assert turns == [(0, "F000"), (1, "M000"), (2, "F001"), (3, "M005"), (4, "F002")]


def test_the_speaker_is_that_of_the_last_field_and_not_of_the_name_of_the_dialogue(
    iemocap_original,
):
    found = by_id(load(iemocap_original))
    for id, speaker in {
        f"{FIRST}_F000": "Ses01_F",
        f"{FIRST}_M005": "Ses01_M",
        "Ses01M_script02_1_F000": "Ses01_F",
        "Ses01M_script02_1_M000": "Ses01_M",
        "Ses03M_impro05a_F000": "Ses03_F",
    }.items():
        assert found[id].speaker == speaker
    pairs = {(one.session, one.speaker) for one in found.values()}
    assert pairs == {(session, f"{session}_{who}") for session in IN_CLASSES for who in "FM"}


def test_a_dialogue_whose_name_begins_like_another(iemocap_original):
    found = by_id(load(iemocap_original))
    for row in ROWS:
        one = found[row.id]
        assert one.dialogue == dialogue_of(row.id)
        assert one.audio == clip(iemocap_original, row.id)
        assert one.text == row.text
    sizes = Counter(one.dialogue for one in found.values())
    assert (sizes["Ses05M_script01_1"], sizes["Ses05M_script01_1b"]) == (2, 2)
    assert (sizes["Ses03M_impro05a"], sizes["Ses03M_impro05b"]) == (2, 2)


def test_no_agreement_is_a_label_and_no_class(iemocap_original):
    corpus = load(iemocap_original)
    assert by_id(corpus)[f"{FIRST}_F002"].label == "xxx"
    assert {one.label for one in corpus.utterances} == {*CLASSES, "xxx"}
    assert "xxx" not in corpus.classes


# Transcripts and clips ----------------------------------------------------------------------------


def test_what_a_transcript_says_without_an_id_or_a_label_is_counted(iemocap_original):
    corpus = load(iemocap_original)
    assert not any("XX" in one.id for one in corpus.utterances)
    assert "2 lines without an id and 2 ids without a label" in note(corpus, "transcripts")


def test_transcripts_that_hold_utterances_alone_need_no_note(iemocap):
    for dialogue, lines in UNLABELLED.items():
        path = transcript(iemocap, dialogue)
        kept = [line for line in path.read_text().splitlines() if line not in lines]
        path.write_text("\n".join(kept))
    corpus = load(iemocap)
    assert [one for one in corpus.notes if "transcripts" in one] == []
    assert by_id(corpus)[f"{FIRST}_M000"].text == "Do you have your forms?"


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "utf-8-sig"])
def test_encodings_and_windows_line_ends(iemocap, encoding):
    before = load(iemocap)
    for kind in (labels, transcript):
        for dialogue in ("Ses02F_impro03", FIRST):
            path = kind(iemocap, dialogue)
            lines = path.read_text(encoding="utf-8").replace("\n", "\r\n")
            path.write_bytes(lines.encode(encoding))
    assert load(iemocap) == before
    assert by_id(before)["Ses02F_impro03_F000"].text == "At the café, it’s over."


def test_bytes_that_no_encoding_has_end_nothing(iemocap):
    path = transcript(iemocap, FIRST)
    path.write_bytes(path.read_bytes().replace(b"Excuse me.", b"Excus\x81 me\xe9."))
    assert by_id(load(iemocap))[f"{FIRST}_F000"].text == "Excus\ufffd meé."


def test_a_label_without_a_clip_or_a_text(iemocap_original):
    found = by_id(load(iemocap_original))
    assert found[ABSENT].audio == clip(iemocap_original, ABSENT)
    assert not found[ABSENT].audio.exists()
    assert found[WITHOUT_TEXT].text is None
    assert found[WITHOUT_TEXT].audio.exists()


def test_a_dialogue_without_a_transcript(iemocap):
    transcript(iemocap, FIRST).unlink()
    corpus = load(iemocap)
    assert set(by_id(corpus)) == IDS
    assert {one.text for one in corpus.utterances if one.dialogue == FIRST} == {None}


def test_clips_of_no_utterance_are_named_with_their_reason(iemocap):
    more = (f"{FIRST}_F099", "Ses01F_impro09_F000")
    for id in more:
        save(clip(iemocap, id), b"RIFF")
    ignored = {path.name: why for path, why in load(iemocap).ignored}
    companion = f"._{FIRST}_F000.wav"
    assert set(ignored) == {companion, *(f"{id}.wav" for id in more)}
    assert "macOS" in ignored.pop(companion)
    assert set(ignored.values()) == {"not in the annotation"}


def test_improvised_and_scripted_utterances_are_counted(iemocap_original):
    assert "of all 22 utterances 12 are improvised and 10 scripted" in note(
        load(iemocap_original), "scripted"
    )


# Classes and protocols ----------------------------------------------------------------------------


def test_happy_and_excited_are_one_of_four_classes(iemocap_original):
    corpus = load(iemocap_original)
    four = corpus.in_classes("4")
    assert four.classes == ("angry", "happy", "sad", "neutral")
    assert Counter(one.label for one in four.utterances if one.label) == {
        "angry": 3,
        "happy": 5,
        "sad": 3,
        "neutral": 4,
    }
    assert by_id(four)[f"{FIRST}_M000"].label == "happy"  # exc
    assert corpus.in_classes() == four


def test_happy_and_excited_are_two_of_six_classes(iemocap_original):
    six = load(iemocap_original).in_classes("6")
    assert six.classes == ("angry", "happy", "excited", "sad", "neutral", "frustrated")
    assert Counter(one.label for one in six.utterances if one.label) == {
        "angry": 3,
        "happy": 3,
        "excited": 2,
        "sad": 3,
        "neutral": 4,
        "frustrated": 2,
    }


@pytest.mark.parametrize("classes", ["4", "6"])
def test_sessions_in_the_classes(iemocap_original, classes):
    merged = load(iemocap_original).in_classes(classes).utterances
    sessions = Counter(one.session for one in merged if one.label is not None)
    assert sessions == {name: counts[classes] for name, counts in IN_CLASSES.items()}


def test_published_counts_agree_with_each_other_and_with_the_class_sets():
    by_code, by_class, by_session = (dict(one.counts) for one in PUBLISHED)
    assert sum(by_code.values()) == 10_039
    assert set(by_code) == {*CLASSES, "xxx"}
    merged: Counter[str] = Counter()
    for code, name in CLASS_SETS["4"].items():
        merged[name] += by_code[code]
    assert merged == by_class
    assert sum(by_class.values()) == sum(by_session.values()) == 5531


def test_leaving_a_session_out_keeps_both_of_its_speakers_out(iemocap_original):
    corpus = load(iemocap_original)
    folds = make_folds(corpus.in_classes("4").utterances, corpus.protocol)
    assert [fold.name for fold in folds] == [f"Ses0{n}" for n in range(1, 6)]
    for fold in folds:
        tested = {one.speaker for one in fold.test}
        assert tested == {f"{fold.name}_F", f"{fold.name}_M"}
        assert not tested & {one.speaker for one in fold.train + fold.validation}


def test_leaving_a_speaker_out_has_ten_folds(iemocap_original):
    folds = make_folds(load(iemocap_original).in_classes("6").utterances, "leave-one-speaker-out")
    assert [fold.name for fold in folds] == [f"Ses0{n}_{who}" for n in range(1, 6) for who in "FM"]
    for fold in folds:
        (partner,) = {one.speaker for one in fold.validation}
        assert {fold.name, partner} == {f"{fold.name[:5]}_F", f"{fold.name[:5]}_M"}


# Extraction ---------------------------------------------------------------------------------------


def test_a_dry_run_counts_every_utterance(iemocap_original, encoders, tmp_path):
    summary = run(iemocap_original, tmp_path, encoders, "iemocap", dry_run=True)
    assert summary.as_json()["utterances"] == len(ROWS)
    assert {one.modality: one.total for one in summary.modalities} == {
        "speech": len(ROWS),
        "text": len(ROWS),
    }
    assert reasons(summary, "speech") == {ABSENT: "absent"}
    assert reasons(summary, "text") == {WITHOUT_TEXT: "no-text"}
    sessions = Counter(one.session for one in summary.corpus.utterances)
    assert sessions == {"Ses01": 7, "Ses02": 3, "Ses03": 4, "Ses04": 4, "Ses05": 4}


@pytest.mark.parametrize("classes", ["4", "6"])
def test_a_dry_run_of_a_set_of_classes(iemocap_original, encoders, tmp_path, classes):
    settings = {"dry_run": True, "classes": classes}
    summary = run(iemocap_original, tmp_path, encoders, "iemocap", **settings)
    expected = sum(counts[classes] for counts in IN_CLASSES.values())
    assert {one.total for one in summary.modalities} == {expected}


# The folder ---------------------------------------------------------------------------------------


def test_the_folder_above_will_do(iemocap_original):
    assert load(iemocap_original.parent) == load(iemocap_original)


def test_two_releases_in_a_folder(iemocap):
    shutil.copytree(iemocap, iemocap.with_name("copy"))
    with pytest.raises(PipelineError, match=r"more than once \(IEMOCAP_full_release, copy\): give"):
        load(iemocap.parent)


def test_some_of_the_sessions_are_a_corpus_with_a_note(iemocap):
    shutil.rmtree(iemocap / "Session2")
    for path in (iemocap / "Session4" / "dialog" / "EmoEvaluation").iterdir():
        path.unlink()
    corpus = load(iemocap)
    assert set(by_id(corpus)) == {id for id in IDS if id[4] in "135"}
    assert "no labels of Session2, Session4" in note(corpus, "not the whole")
    clips = {path.stem for path, _ in corpus.ignored}
    assert {id for id in IDS if id[4] == "4"} - {ABSENT} <= clips


def test_a_whole_release_has_no_such_note(iemocap_original):
    assert not any("not the whole" in one for one in load(iemocap_original).notes)


@pytest.mark.parametrize("made", [".", "Session1", "Session1/dialog/EmoEvaluation"])
def test_a_folder_that_is_not_iemocap(tmp_path, made):
    (tmp_path / made).mkdir(parents=True, exist_ok=True)
    with pytest.raises(PipelineError, match=r"is not IEMOCAP: .* give the folder that holds Sess"):
        load(tmp_path)


def test_a_single_session_is_not_the_folder_to_give(iemocap_original):
    with pytest.raises(PipelineError, match="give the folder that holds Session1 to Session5"):
        load(iemocap_original / "Session1")


def test_no_such_folder(tmp_path):
    with pytest.raises(UsageError, match=r"there is no folder .*: give the folder of iemocap"):
        load_corpus("iemocap", tmp_path / "nothing")


# Labels that are none -----------------------------------------------------------------------------


def refused(root, dialogue, match):
    with pytest.raises(PipelineError, match=match) as caught:
        load(root)
    assert str(caught.value).startswith(str(labels(root, dialogue)))


def test_a_file_of_labels_that_is_cut_off(iemocap):
    path = labels(iemocap, FIRST)
    path.write_text(HEADER + label_lines(ROWS[0]) + "[10.0100 - 11.3925]\tSes01F_imp")
    refused(iemocap, FIRST, r"line 10: it is no label of IEMOCAP's")


def test_an_emotion_that_iemocap_does_not_have(iemocap):
    save(labels(iemocap, FIRST), HEADER + label_lines(ROWS[0]._replace(label="bor")))
    refused(iemocap, FIRST, r"line 3: 'bor' is no emotion of IEMOCAP")


def test_a_copy_of_a_dialogue_under_another_name(iemocap):
    copy = labels(iemocap, f"{FIRST} copy")
    shutil.copy(labels(iemocap, FIRST), copy)
    refused(iemocap, f"{FIRST} copy", f"{FIRST}_F000 is not of this dialogue")
