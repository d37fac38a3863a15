import csv
import hashlib
import os
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy.io import wavfile
from scipy.ndimage import uniform_filter1d
from scipy.signal import find_peaks
from scipy.sparse import hstack
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_score
from sklearn.preprocessing import StandardScaler

from mser.pipeline.corpora import Utterance, synthetic
from mser.pipeline.errors import PipelineError

ROWS = 16  # utterances of a session in the small corpora


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return synthetic.load(tmp_path_factory.mktemp("synthetic") / "corpus")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "small"
    synthetic.make(root, utterances_per_session=ROWS)
    return root


@pytest.fixture(scope="module")
def clips(corpus):
    read = [wavfile.read(each.audio) for each in corpus.utterances]
    assert {rate for rate, _ in read} == {16_000}
    return [clip for _, clip in read]


@pytest.fixture(scope="module")
def acoustics(clips):
    return np.array([statistics(clip / 32768) for clip in clips])


def statistics(clip):
    """Level, F0 mean and spread, syllable rate, spectral balance and length of one clip."""
    frames = np.lib.stride_tricks.sliding_window_view(clip, 640)[::320] * np.hanning(640)
    power = np.abs(np.fft.rfft(frames, 1280)) ** 2
    level = 10 * np.log10(power.sum(axis=1) + 1e-9)
    active = level > level.max() - 20
    # F0 is where the autocorrelation of a frame is highest between 70 and 500 Hz.
    likeness = np.fft.irfft(power)[:, 32:229] / np.fft.irfft(power)[:, :1]
    voiced = active & (likeness.max(axis=1) > 0.35)
    f0 = 12 * np.log2(16_000 / (32 + likeness.argmax(axis=1)[voiced]))
    spread = np.subtract(*np.percentile(f0, [90, 10])) if voiced.any() else 0
    middle = np.median(f0) if voiced.any() else 0
    peaks, _ = find_peaks(uniform_filter1d(level, 3), prominence=2, height=level.max() - 20)
    mean = power[active].mean(axis=0)
    balance = 10 * np.log10(mean[80:320].sum() / mean[:80].sum())
    seconds = len(clip) / 16_000
    return level[active].mean(), middle, spread, len(peaks) / seconds, balance, seconds


def digests(root):
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_structure(corpus):
    each = corpus.utterances
    assert corpus.name == "synthetic"
    assert corpus.classes == ("angry", "happy", "neutral", "sad")
    assert corpus.protocol == "leave-one-session-out"
    assert len(each) == len({u.id for u in each}) == 480
    assert set(Counter(u.label for u in each).values()) == {120}
    assert set(Counter((u.session, u.label) for u in each).values()) == {30}
    assert all(59 <= n <= 61 for n in Counter(u.speaker for u in each).values())
    assert {u.speaker for u in each} == {f"ses0{n}_{who}" for n in (1, 2, 3, 4) for who in "fm"}
    assert all(u.speaker.startswith(f"{u.session}_") for u in each)
    assert all(u.split is None and u.id == f"{u.dialogue}_utt{u.turn:02d}" for u in each)


def test_dialogues_alternate_and_vary(corpus):
    dialogues: dict[str, list[Utterance]] = {}
    for u in corpus.utterances:
        dialogues.setdefault(u.dialogue, []).append(u)
    assert all(6 <= len(turns) <= 10 for turns in dialogues.values())
    for turns in dialogues.values():
        assert [u.turn for u in turns] == list(range(len(turns)))
        assert len({u.session for u in turns}) == 1
        assert all(a.speaker != b.speaker for a, b in pairwise(turns))
        assert len({u.label for u in turns}) >= 2


def test_clips_are_like_speech(corpus, clips, acoustics):
    assert all(clip.dtype == np.int16 and clip.ndim == 1 for clip in clips)
    seconds = acoustics[:, 5]
    assert 1 <= seconds.min() < seconds.max() <= 3
    assert 1.6 < seconds.mean() < 2.0
    assert max(np.abs(clip.astype(int)).max() for clip in clips) < 32_767
    assert (acoustics[:, 3] > 1).all()  # syllables a second
    pitch = acoustics[:, 1]
    female = np.array([u.speaker.endswith("f") for u in corpus.utterances])
    assert np.median(pitch[female]) - np.median(pitch[~female]) > 5


def test_emotions_sound_as_the_literature_says(corpus, acoustics):
    labels = np.array([u.label for u in corpus.utterances])
    mean = {emotion: acoustics[labels == emotion].mean(axis=0) for emotion in corpus.classes}
    level, pitch, spread, _, balance, seconds = range(6)
    for feature in (level, balance):
        assert mean["angry"][feature] > mean["neutral"][feature] > mean["sad"][feature]
    for feature in (pitch, spread):
        assert mean["happy"][feature] > mean["neutral"][feature] > mean["sad"][feature]
        assert mean["angry"][feature] > mean["neutral"][feature]
    assert mean["angry"][seconds] < mean["sad"][seconds]


def test_no_modality_is_enough_alone(corpus, acoustics):
    labels = [u.label for u in corpus.utterances]
    sessions = [u.session for u in corpus.utterances]
    words = CountVectorizer().fit_transform([u.text for u in corpus.utterances])
    sounds = StandardScaler().fit_transform(acoustics)

    def accuracy(features):
        model = LogisticRegression(C=1.0, max_iter=1000)
        folds = LeaveOneGroupOut()
        return cross_val_score(model, features, labels, groups=sessions, cv=folds).mean()

    voice, text, both = accuracy(sounds), accuracy(words), accuracy(hstack([sounds, words]).tocsr())
    assert 0.55 < voice < 0.80
    assert 0.55 < text < 0.80
    assert both > max(voice, text) + 0.10
    assert both > 0.80


def test_sentences(corpus):
    texts = [u.text for u in corpus.utterances]
    found = {word for text in texts for word in text.lower().rstrip(".").split()}
    assert found <= set(synthetic.SENTENCE_WORDS)
    assert list(synthetic.SENTENCE_WORDS) == sorted(set(synthetic.SENTENCE_WORDS))
    assert all(word.isalpha() and word.islower() for word in synthetic.SENTENCE_WORDS)
    by_session = [{u.text for u in corpus.utterances if u.session == f"ses0{n}"} for n in (1, 2)]
    assert len(by_session[0] & by_session[1]) < 0.2 * len(by_session[0])


def test_everything_says_that_it_is_synthetic(corpus, small):
    assert any("synthetic" in note and "real speech" in note for note in corpus.notes)
    readme = (small / "README.txt").read_text("utf-8")
    assert "ynthetic" in readme
    assert "mser" in readme
    assert f"recipe version {synthetic.RECIPE}" in readme


def test_the_same_bytes_every_time(small, tmp_path):
    synthetic.make(tmp_path, utterances_per_session=ROWS)
    assert digests(tmp_path) == digests(small)


def test_an_utterance_does_not_depend_on_how_many_are_made(corpus, small):
    whole = digests(corpus.utterances[0].audio.parents[2])
    part = {name: digest for name, digest in digests(small).items() if name.endswith(".wav")}
    assert len(part) == 4 * ROWS
    assert part.items() <= whole.items()


def test_another_seed_is_another_corpus(small, tmp_path):
    synthetic.make(tmp_path, utterances_per_session=8, seed=1)
    assert not set(digests(tmp_path).values()) & set(digests(small).values()) - {
        digests(small)["README.txt"]
    }


def test_load_reads_what_is_there(small):
    before = digests(small)
    corpus = synthetic.load(small)
    assert len(corpus.utterances) == 4 * ROWS
    assert digests(small) == before
    with (small / "utterances.csv").open(encoding="utf-8", newline="") as table:
        row = next(csv.DictReader(table))
    assert ",".join(row) == "id,audio,text,label,speaker,session,dialogue,turn,video"
    first = corpus.utterances[0]
    assert first.audio == small / row["audio"] == small / f"wav/ses01/{first.id}.wav"


@pytest.mark.parametrize("act", [synthetic.load, synthetic.make])
@pytest.mark.parametrize("name", ["mine.txt", "README.txt", "utterances.csv", "wav"])
def test_a_foreign_folder_is_refused_and_left_alone(tmp_path, act, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(PipelineError, match="empty or new folder") as refusal:
        act(tmp_path)
    assert str(tmp_path) in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(PipelineError, match="is a file"):
        synthetic.load(tmp_path / "taken")


def test_an_interrupted_creation_is_made_again(small, tmp_path, monkeypatch):
    written = 0
    write = wavfile.write

    def interrupt(*arguments):
        nonlocal written
        written += 1
        if written > 20:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(wavfile, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        synthetic.make(tmp_path, utterances_per_session=24)
    assert not (tmp_path / "utterances.csv").exists()
    monkeypatch.undo()
    # Clips that the second, smaller corpus has no use for are gone, too.
    synthetic.make(tmp_path, utterances_per_session=ROWS)
    assert digests(tmp_path) == digests(small)


def test_an_interrupted_creation_with_foreign_files_is_refused(tmp_path):
    synthetic.make(tmp_path, utterances_per_session=1)
    os.remove(tmp_path / "utterances.csv")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(PipelineError, match="empty or new folder"):
        synthetic.load(tmp_path)


def test_a_whole_corpus_is_read_beside_foreign_files(tmp_path):
    synthetic.make(tmp_path, utterances_per_session=1)
    (tmp_path / "mine.txt").write_text("mine")
    assert len(synthetic.load(tmp_path).utterances) == 4


def test_a_whole_corpus_is_not_made_over(small):
    with pytest.raises(PipelineError, match="already"):
        synthetic.make(small)


def test_another_recipe_is_refused(tmp_path):
    synthetic.make(tmp_path, utterances_per_session=1)
    readme = tmp_path / "README.txt"
    readme.write_text(readme.read_text().replace("version 1", "version 0"))
    with pytest.raises(PipelineError, match="recipe version 0"):
        synthetic.load(tmp_path)


def test_lost_clips_are_named(tmp_path):
    synthetic.make(tmp_path, utterances_per_session=2)
    next(tmp_path.glob("wav/*/*.wav")).unlink()
    with pytest.raises(PipelineError, match="1 of the 8 clips"):
        synthetic.load(tmp_path)


def test_other_voices_say_other_sentences(tmp_path):
    first = synthetic.load(tmp_path / "a", utterances_per_session=2)
    other = synthetic.load_other(tmp_path / "b", utterances_per_session=2)
    assert (first.name, other.name) == ("synthetic", "synthetic-other")
    clips = [{u.audio.read_bytes() for u in each.utterances if u.audio} for each in (first, other)]
    assert not clips[0] & clips[1]
    with pytest.raises(PipelineError, match="version 1 and this is version 1, seed 1"):
        synthetic.load_other(tmp_path / "a")
    assert synthetic.load_other(tmp_path / "b").utterances == other.utterances
