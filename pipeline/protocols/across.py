"""Training on some corpora and testing on others: one fold for each test corpus.

The training part and the validation part are those of the training corpora, the same in every
fold. A corpus with official splits gives its parts of that name, and its test part is not used; of
another corpus all utterances are used, and the validation part is cut by whole sessions, else
speakers, else dialogues, whichever has two values or more. The test part is the official test part
of a test corpus, or all of it. The ids are ``CORPUS/ID``.
"""

import random
from collections.abc import Iterator, Mapping, Sequence

from ..corpora import Utterance
from ..errors import PipelineError, UsageError
from .folds import PAIRS, PARTS, VALIDATIONS, Fold, Splits, cut_validation, value_of

NAME = "cross-corpus"
"""The name of this protocol in a run folder."""

_SEED = 0
_APART = ("id", "audio", "speaker", "dialogue", "session")


def corpus_of(id: str) -> str:
    """Return the corpus of an id ``CORPUS/ID``."""
    return id.partition("/")[0]


def split_across(
    utterances: Sequence[Utterance],
    train_on: Sequence[str],
    test_on: Sequence[str],
    audio_hashes: Mapping[str, str | None],
    *,
    validation: str | None = None,
    balance: bool = False,
) -> Splits:
    """Split the utterances of several corpora. ``check_leakage`` checks the result too.

    Args:
        utterances: those that can be trained on, of all corpora.
        train_on: names of the training corpora.
        test_on: names of the test corpora.
        audio_hashes: the sha256 of the clips by id.
        validation: the column by whose whole values the validation part is cut from the training
            part of a corpus without an official one.
        balance: whether whole dialogues of the larger training corpora are left out, so that each
            has about as many training utterances as the smallest.

    Raises:
        UsageError: a corpus is both trained on and tested on, or ``validation`` cannot be used.
        PipelineError: a part is empty, or a test utterance is also in another part.
    """
    if both := [name for name in test_on if name in train_on]:
        raise UsageError(
            f"'{both[0]}' is in --train-on and in --test-on: a corpus is tested on itself with "
            f"--dataset {both[0]} and a protocol"
        )
    left_out: dict[str, str] = {}
    train: dict[str, Sequence[Utterance]] = {}
    held_out: list[Utterance] = []
    for name in train_on:
        train[name], of_corpus, unused = _training_parts(_of(utterances, name), name, validation)
        held_out += of_corpus
        left_out |= dict.fromkeys(unused, "in the test part of a training corpus")
    if balance:
        fewest = min(map(len, train.values()))
        for name, whole in train.items():
            train[name] = _at_most(fewest, whole)
            dropped = {u.id for u in whole} - {u.id for u in train[name]}
            left_out |= dict.fromkeys(dropped, "left out to balance the training corpora")
    trained = tuple(utterance for of_corpus in train.values() for utterance in of_corpus)
    folds = []
    for name in test_on:
        of_corpus = _of(utterances, name)
        official = [u for u in of_corpus if (u.split or "").startswith("test")]
        test = official or of_corpus
        unused = {u.id for u in of_corpus} - {u.id for u in test}
        left_out |= dict.fromkeys(unused, "not in the test part of a test corpus")
        folds.append(Fold(name, trained, tuple(held_out), tuple(test)))
    for fold in folds:
        for part in PARTS:
            if not fold.part(part):
                raise PipelineError(
                    f"the {part} part of fold '{fold.name}' is empty: give other corpora"
                )
        _check_separate(fold, audio_hashes)
    return Splits(
        tuple(folds),
        dict(zip(PAIRS, (("id",), _APART, _APART), strict=True)),
        left_out=left_out,
        validation=validation,
    )


def _of(utterances: Sequence[Utterance], corpus: str) -> list[Utterance]:
    return [utterance for utterance in utterances if corpus_of(utterance.id) == corpus]


def _training_parts(
    utterances: Sequence[Utterance], name: str, validation: str | None
) -> tuple[Sequence[Utterance], Sequence[Utterance], set[str]]:
    """Return the training part, the validation part, and the ids that are not used."""
    if any(utterance.split is None for utterance in utterances):
        train: Sequence[Utterance] = utterances
        held_out: Sequence[Utterance] = ()
    else:
        train = [utterance for utterance in utterances if utterance.split == "train"]
        held_out = [utterance for utterance in utterances if utterance.split == "validation"]
    unused = {u.id for u in utterances} - {u.id for u in (*train, *held_out)}
    if held_out and validation:
        raise UsageError(
            f"validation by {validation} cuts a validation part, but {name} has its own: leave out "
            "--validation"
        )
    if not held_out and train:
        by = validation or _validation_column(train)
        if any(value_of(utterance, by) is None for utterance in train):
            raise UsageError(
                f"validation by {by} needs the column {by}, which {name} does not have for all "
                "utterances: give another --validation"
            )
        train, held_out = cut_validation(train, by)
    return train, held_out, unused


def _validation_column(utterances: Sequence[Utterance]) -> str:
    for column in VALIDATIONS:
        values = {value_of(utterance, column) for utterance in utterances}
        if None not in values and len(values) > 1:
            return column
    return "id"


def _at_most(count: int, utterances: Sequence[Utterance]) -> list[Utterance]:
    """Return ``count`` utterances or fewer, in whole dialogues that are drawn with a fixed seed."""
    dialogues: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        dialogues.setdefault(utterance.dialogue or utterance.id, []).append(utterance)
    names = sorted(dialogues)
    random.Random(_SEED).shuffle(names)  # noqa: S311 -- not for secrets
    kept: set[str] = set()
    for name in names:
        ids = {utterance.id for utterance in dialogues[name]}
        if len(kept) + len(ids) <= count:
            kept |= ids
    return [utterance for utterance in utterances if utterance.id in kept]


def _check_separate(fold: Fold, audio_hashes: Mapping[str, str | None]) -> None:
    """Check that no test utterance is one of another part under the name of another corpus.

    The same clip is the same utterance. The same own id is too, unless the clips or, without clips,
    the texts show that the utterances differ: corpora may number their utterances alike.

    Raises:
        PipelineError: an utterance is in the test part and in another part.
    """
    others = (*fold.train, *fold.validation)
    by_hash = {audio_hashes[u.id]: u for u in others if audio_hashes.get(u.id) is not None}
    by_id = {u.id.partition("/")[2]: u for u in others}
    for same, tested, trained in _pairs(fold.test, by_hash, by_id, audio_hashes):
        raise PipelineError(
            f"'{tested.id}' of the test part and '{trained.id}' of the training corpora have the "
            f"same {same}, so the test is not on another corpus: leave one of the two corpora out, "
            "or remove the utterance from one of them"
        )


def _pairs(
    test: Sequence[Utterance],
    by_hash: Mapping[str | None, Utterance],
    by_id: Mapping[str, Utterance],
    audio_hashes: Mapping[str, str | None],
) -> Iterator[tuple[str, Utterance, Utterance]]:
    """Yield what is the same, the test utterance, and the training utterance."""
    for tested in test:
        clip = audio_hashes.get(tested.id)
        if clip is not None and clip in by_hash:
            yield "clip", tested, by_hash[clip]
        trained = by_id.get(tested.id.partition("/")[2])
        if trained is None:
            continue
        other_clip = audio_hashes.get(trained.id)
        if clip is None or other_clip is None:
            texts = (value_of(tested, "text"), value_of(trained, "text"))
            differ = None not in texts and texts[0] != texts[1]
        else:
            differ = clip != other_clip
        if not differ:
            yield "id", tested, trained
