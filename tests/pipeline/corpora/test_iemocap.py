"""IEMOCAP in the layout of the release, with its traps."""

import shutil
from collections import Counter

import pytest

from mser.pipeline.corpora import load_corpus
from mser.pipeline.corpora.iemocap import CLASS_SETS, CLASSES, PUBLISHED, load
from mser.pipeline.errors import PipelineError, UsageError
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
from mser.tests.support.small_corpora import column, make_folds

FIRST = "Ses01F_impro01"
# Session → class set → number of utterances in its classes.
IN_CLASSES = {
    "Ses01": {"4": 5, "6": 6},
    "Ses02": {"4": 2, "6": 2},
    "Ses03": {"4": 3, "6": 3},
    "Ses04": {"4": 2, "6": 2},
    "Ses05": {"4": 3, "6": 4},
}


def by_id(corpus):
    utterances = {utterance.id: utterance for utterance in corpus.utterances}
    assert len(utterances) == len(corpus.utterances)
    return utterances


def note(corpus, about):
    (note,) = (note for note in corpus.notes if about in note)
    return note


# Utterances ---------------------------------------------------------------------------------------


def test_every_consensus_label_is_an_utterance(iemocap_original):
    corpus = load_corpus("iemocap", iemocap_original)
    utterances = by_id(corpus)
    assert set(utterances) == IDS
    labels = {id: utterance.label for id, utterance in utterances.items()}
    assert labels == {row.id: row.label for row in ROWS}
    assert (corpus.name, corpus.protocol) == ("iemocap", "leave-one-session-out")
    assert {utterance.split for utterance in corpus.utterances} == {None}


def test_utterances_are_sorted_by_session_dialogue_and_turn(iemocap_original):
    order = [(u.session, u.dialogue, u.turn) for u in load(iemocap_original).utterances]
    assert order == sorted(order)
    assert {session for session, *_ in order} == {f"Ses0{n}" for n in range(1, 6)}


def test_turns_follow_the_start_times_not_the_numbers_in_the_ids(iemocap_original):
    utterances = load(iemocap_original).utterances
    turns = [(u.turn, u.id.rpartition("_")[2]) for u in utterances if u.dialogue == FIRST]
    assert turns == [(0, "F000"), (1, "M000"), (2, "F001"), (3, "M005"), (4, "F002")]


def test_the_last_field_of_an_id_gives_the_speaker(iemocap_original):
    utterances = by_id(load(iemocap_original))
    for id, speaker in {
        f"{FIRST}_F000": "Ses01_F",
        f"{FIRST}_M005": "Ses01_M",
        "Ses01M_script02_1_F000": "Ses01_F",
        "Ses01M_script02_1_M000": "Ses01_M",
        "Ses03M_impro05a_F000": "Ses03_F",
    }.items():
        assert utterances[id].speaker == speaker
    pairs = {(utterance.session, utterance.speaker) for utterance in utterances.values()}
    assert pairs == {(session, f"{session}_{gender}") for session in IN_CLASSES for gender in "FM"}


def test_dialogues_whose_names_begin_alike_are_kept_apart(iemocap_original):
    utterances = by_id(load(iemocap_original))
    for row in ROWS:
        utterance = utterances[row.id]
        assert utterance.dialogue == dialogue_of(row.id)
        assert utterance.audio == clip(iemocap_original, row.id)
        assert utterance.text == row.text
    sizes = Counter(utterance.dialogue for utterance in utterances.values())
    assert (sizes["Ses05M_script01_1"], sizes["Ses05M_script01_1b"]) == (2, 2)
    assert (sizes["Ses03M_impro05a"], sizes["Ses03M_impro05b"]) == (2, 2)


def test_no_agreement_is_a_label_but_not_a_class(iemocap_original):
    corpus = load(iemocap_original)
    assert by_id(corpus)[f"{FIRST}_F002"].label == "xxx"
    assert {utterance.label for utterance in corpus.utterances} == {*CLASSES, "xxx"}
    assert "xxx" not in corpus.classes


# Transcripts and clips ----------------------------------------------------------------------------


def test_transcript_lines_without_an_id_or_a_label_are_counted(iemocap_original):
    corpus = load(iemocap_original)
    assert not any("XX" in utterance.id for utterance in corpus.utterances)
    assert "2 lines without an id and 2 ids without a label" in note(corpus, "transcripts")


def test_transcripts_with_only_utterances_have_no_note(iemocap):
    for dialogue, lines in UNLABELLED.items():
        path = transcript(iemocap, dialogue)
        kept = [line for line in path.read_text().splitlines() if line not in lines]
        path.write_text("\n".join(kept))
    corpus = load(iemocap)
    assert [note for note in corpus.notes if "transcripts" in note] == []
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


def test_bytes_of_no_encoding_are_replaced(iemocap):
    path = transcript(iemocap, FIRST)
    path.write_bytes(path.read_bytes().replace(b"Excuse me.", b"Excus\x81 me\xe9."))
    assert by_id(load(iemocap))[f"{FIRST}_F000"].text == "Excus\ufffd meé."


def test_a_label_without_a_clip_or_a_text(iemocap_original):
    utterances = by_id(load(iemocap_original))
    assert utterances[ABSENT].audio == clip(iemocap_original, ABSENT)
    assert not utterances[ABSENT].audio.exists()
    assert utterances[WITHOUT_TEXT].text is None
    assert utterances[WITHOUT_TEXT].audio.exists()


def test_a_dialogue_without_a_transcript(iemocap):
    transcript(iemocap, FIRST).unlink()
    corpus = load(iemocap)
    assert set(by_id(corpus)) == IDS
    texts = {utterance.text for utterance in corpus.utterances if utterance.dialogue == FIRST}
    assert texts == {None}


def test_clips_without_an_utterance_are_listed_with_a_reason(iemocap):
    more = (f"{FIRST}_F099", "Ses01F_impro09_F000")
    for id in more:
        save(clip(iemocap, id), b"RIFF")
    ignored = {path.name: reason for path, reason in load(iemocap).ignored}
    companion = f"._{FIRST}_F000.wav"
    assert set(ignored) == {companion, *(f"{id}.wav" for id in more)}
    assert "macOS" in ignored.pop(companion)
    assert set(ignored.values()) == {"not in the annotation"}


def test_improvised_and_scripted_utterances_are_counted(iemocap_original):
    assert "of all 22 utterances 12 are improvised and 10 scripted" in note(
        load(iemocap_original), "scripted"
    )


# Classes and protocols ----------------------------------------------------------------------------


def test_the_scenario_of_a_dialogue_recurs_in_all_sessions(iemocap_original):
    corpus = load(iemocap_original)
    scenario = corpus.columns["scenario"]
    assert set(scenario) == {utterance.id for utterance in corpus.utterances}
    for id, name in scenario.items():
        assert f"_{name}" in id
        assert name.removeprefix("script").removeprefix("impro").isdecimal()
    sessions: dict[str, set[str | None]] = {}
    for utterance in corpus.utterances:
        sessions.setdefault(scenario[utterance.id], set()).add(utterance.session)
    assert max(map(len, sessions.values())) > 1


def test_happy_and_excited_are_merged_in_four_classes(iemocap_original):
    corpus = load(iemocap_original)
    four = corpus.in_classes("4")
    assert four.classes == ("angry", "happy", "sad", "neutral")
    assert Counter(u.label for u in four.utterances if u.label) == {
        "angry": 3,
        "happy": 5,
        "sad": 3,
        "neutral": 4,
    }
    assert by_id(four)[f"{FIRST}_M000"].label == "happy"  # exc
    assert corpus.in_classes() == four


def test_happy_and_excited_are_separate_in_six_classes(iemocap_original):
    six = load(iemocap_original).in_classes("6")
    assert six.classes == ("angry", "happy", "excited", "sad", "neutral", "frustrated")
    assert Counter(u.label for u in six.utterances if u.label) == {
        "angry": 3,
        "happy": 3,
        "excited": 2,
        "sad": 3,
        "neutral": 4,
        "frustrated": 2,
    }


@pytest.mark.parametrize("classes", ["4", "6"])
def test_utterances_per_session_in_the_classes(iemocap_original, classes):
    merged = load(iemocap_original).in_classes(classes).utterances
    sessions = Counter(u.session for u in merged if u.label is not None)
    assert sessions == {name: counts[classes] for name, counts in IN_CLASSES.items()}


def test_published_counts_agree_with_each_other_and_with_the_class_sets():
    by_code, by_class, by_session = (dict(published.counts) for published in PUBLISHED)
    assert sum(by_code.values()) == 10_039
    assert set(by_code) == {*CLASSES, "xxx"}
    merged: Counter[str] = Counter()
    for code, name in CLASS_SETS["4"].items():
        merged[name] += by_code[code]
    assert merged == by_class
    assert sum(by_class.values()) == sum(by_session.values()) == 5531


def test_a_left_out_session_takes_both_speakers_out(iemocap_original):
    corpus = load(iemocap_original)
    folds = make_folds(corpus.in_classes("4").utterances, corpus.protocol)
    assert [fold.name for fold in folds] == [f"Ses0{n}" for n in range(1, 6)]
    for fold in folds:
        tested = column(fold.test, "speaker")
        assert tested == {f"{fold.name}_F", f"{fold.name}_M"}
        assert not tested & column(fold.train + fold.validation, "speaker")


def test_leaving_a_speaker_out_has_ten_folds(iemocap_original):
    folds = make_folds(load(iemocap_original).in_classes("6").utterances, "leave-one-speaker-out")
    assert [fold.name for fold in folds] == [f"Ses0{n}_{sex}" for n in range(1, 6) for sex in "FM"]
    for fold in folds:
        (partner,) = column(fold.validation, "speaker")
        assert {fold.name, partner} == {f"{fold.name[:5]}_F", f"{fold.name[:5]}_M"}


# Extraction ---------------------------------------------------------------------------------------


def test_a_dry_run_counts_every_utterance(iemocap_original, encoders, tmp_path):
    summary = run(iemocap_original, tmp_path, encoders, "iemocap", dry_run=True)
    assert summary.as_json()["utterances"] == len(ROWS)
    assert {modality.modality: modality.total for modality in summary.modalities} == {
        "speech": len(ROWS),
        "text": len(ROWS),
    }
    assert reasons(summary, "speech") == {ABSENT: "absent"}
    assert reasons(summary, "text") == {WITHOUT_TEXT: "no-text"}
    sessions = Counter(utterance.session for utterance in summary.corpus.utterances)
    assert sessions == {"Ses01": 7, "Ses02": 3, "Ses03": 4, "Ses04": 4, "Ses05": 4}


@pytest.mark.parametrize("classes", ["4", "6"])
def test_a_dry_run_of_a_set_of_classes(iemocap_original, encoders, tmp_path, classes):
    settings = {"dry_run": True, "classes": classes}
    summary = run(iemocap_original, tmp_path, encoders, "iemocap", **settings)
    expected = sum(counts[classes] for counts in IN_CLASSES.values())
    assert {modality.total for modality in summary.modalities} == {expected}


# The folder ---------------------------------------------------------------------------------------


def test_the_parent_folder_is_accepted(iemocap_original):
    assert load(iemocap_original.parent) == load(iemocap_original)


def test_two_releases_in_a_folder(iemocap):
    shutil.copytree(iemocap, iemocap.with_name("copy"))
    with pytest.raises(PipelineError, match=r"more than once \(IEMOCAP_full_release, copy\): give"):
        load(iemocap.parent)


def test_missing_sessions_have_a_note(iemocap):
    shutil.rmtree(iemocap / "Session2")
    for path in (iemocap / "Session4" / "dialog" / "EmoEvaluation").iterdir():
        path.unlink()
    corpus = load(iemocap)
    assert set(by_id(corpus)) == {id for id in IDS if id[4] in "135"}
    assert "no labels of Session2, Session4" in note(corpus, "not complete")
    clips = {path.stem for path, _ in corpus.ignored}
    assert {id for id in IDS if id[4] == "4"} - {ABSENT} <= clips


def test_a_complete_release_has_no_such_note(iemocap_original):
    assert not any("not complete" in note for note in load(iemocap_original).notes)


@pytest.mark.parametrize("made", [".", "Session1", "Session1/dialog/EmoEvaluation"])
def test_a_folder_that_is_not_iemocap(tmp_path, made):
    (tmp_path / made).mkdir(parents=True, exist_ok=True)
    with pytest.raises(PipelineError, match=r"is not IEMOCAP: .* give the folder that"):
        load(tmp_path)


def test_the_folder_of_a_session_is_not_accepted(iemocap_original):
    with pytest.raises(PipelineError, match="give the folder that contains Session1 to Session5"):
        load(iemocap_original / "Session1")


def test_no_such_folder(tmp_path):
    with pytest.raises(UsageError, match=r"there is no folder .*: give the folder of iemocap"):
        load_corpus("iemocap", tmp_path / "nothing")


# Damaged labels -----------------------------------------------------------------------------------


def refused(root, dialogue, match):
    with pytest.raises(PipelineError, match=match) as caught:
        load(root)
    assert str(caught.value).startswith(str(labels(root, dialogue)))


def test_a_file_of_labels_that_is_cut_off(iemocap):
    path = labels(iemocap, FIRST)
    path.write_text(HEADER + label_lines(ROWS[0]) + "[10.0100 - 11.3925]\tSes01F_imp")
    refused(iemocap, FIRST, r"line 10: it is not a label line of IEMOCAP")


def test_an_emotion_that_iemocap_does_not_have(iemocap):
    save(labels(iemocap, FIRST), HEADER + label_lines(ROWS[0]._replace(label="bor")))
    refused(iemocap, FIRST, r"line 3: 'bor' is not an emotion of IEMOCAP")


def test_a_copy_of_a_dialogue_under_another_name(iemocap):
    copy = labels(iemocap, f"{FIRST} copy")
    shutil.copy(labels(iemocap, FIRST), copy)
    refused(iemocap, f"{FIRST} copy", f"{FIRST}_F000 does not belong to this dialogue")
