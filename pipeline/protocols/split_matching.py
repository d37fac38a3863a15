"""Matching of the names in a split file with the utterances of a corpus."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath

from ..corpora import Utterance
from ..errors import PipelineError, UsageError
from .folds import PAIRS, PARTS, Fold, Splits, cut_validation
from .split_files import SplitFile, read_split_file

_SHOWN = 3  # names per message


def split_by_file(
    path: Path,
    utterances: Sequence[Utterance],
    corpus: Sequence[Utterance] | None = None,
    validation: str | None = None,
) -> Splits:
    """Split ``utterances`` by a split file.

    A name is an id, or a path or file name whose stem is that of an id or of a clip. All utterances
    of ``corpus`` are searched; ``utterances`` are those that can be trained on. Parts have the
    order of the file. If a fold has no validation part, it is cut from the training part by whole
    values of the column ``validation``; by default by whole dialogues, or by whole speakers if the
    corpus has no dialogues and no speaker is in both the training and the test part.

    Raises:
        UsageError: there is no such file, its suffix is not that of a split file, or ``validation``
            is given although the file has a validation part.
        PipelineError: the file is wrong, no name in it matches an utterance, or a name matches
            several.
    """
    split = read_split_file(path)
    ids = _match(split, utterances if corpus is None else corpus)
    usable = {utterance.id: utterance for utterance in utterances}
    folds: list[Fold] = []
    cut: dict[str, None] = {}
    defaults: set[str] = set()
    for name, names in split.folds.items():
        parts = {
            part: tuple(usable[ids[n]] for n in names.get(part, ()) if ids.get(n) in usable)
            for part in PARTS
        }
        if names.get("validation") and validation:
            raise UsageError(
                f"validation by {validation} cuts a validation part, but fold '{name}' of {path} "
                "has its own: leave out --validation"
            )
        if not names.get("validation") and parts["train"]:
            default = _validation_column(parts["train"], parts["test"])
            defaults.add(default)
            by = validation or default
            parts["train"], parts["validation"] = cut_validation(parts["train"], by)
            cut[by] = None
        folds.append(Fold(name, parts["train"], parts["validation"], parts["test"]))
    used = [{utterance.id for part in PARTS for utterance in fold.part(part)} for fold in folds]
    left_out = usable.keys() - set[str]().union(*used)
    return Splits(
        tuple(folds),
        dict.fromkeys(PAIRS, ("id",)),
        tuple(_notes(split, ids, usable, cut, used)),
        {id: f"in no part of {path.name}" for id in usable if id in left_out},
        None if defaults == {validation} else validation,
    )


def _match(split: SplitFile, corpus: Sequence[Utterance]) -> dict[str, str]:
    """Return the utterance id of each name in a file, except for names that match none."""
    by_id = {utterance.id for utterance in corpus}
    by_name: defaultdict[str, dict[str, Utterance]] = defaultdict(dict)
    for utterance in corpus:
        for path in (utterance.id, *([str(utterance.audio)] if utterance.audio else [])):
            for name in {PureWindowsPath(path).name, PureWindowsPath(path).stem}:
                by_name[name][utterance.id] = utterance
    ids: dict[str, str] = {}
    ambiguous: dict[str, list[str]] = {}
    names = _names(split)
    for name in names:
        matches = [name] if name in by_id else _matches(name, by_name)
        if len(matches) == 1:
            ids[name] = matches[0]
        elif matches:
            ambiguous[name] = matches
    if ambiguous:
        example = next(iter(ambiguous.values()))
        raise PipelineError(
            f"{len(ambiguous)} of {len(names)} names in {split.path} match several utterances "
            f"({_few(ambiguous)}): write ids of the corpus instead, such as {example[0]}"
        )
    if not ids:
        own = _few([utterance.id for utterance in corpus])
        raise PipelineError(
            f"none of the {len(names)} names in {split.path} ({_few(names)}) matches an utterance "
            f"of this corpus ({own}): give a split file of this corpus"
        )
    return ids


def _matches(name: str, by_name: Mapping[str, Mapping[str, Utterance]]) -> list[str]:
    """Return the ids that match a path or a file name; if several do, its folder may decide.

    MELD, for example, has a dia0_utt0.mp4 in each of its three folders of clips.
    """
    path = PureWindowsPath(name)  # also splits at /
    matches = {**by_name.get(path.name, {}), **by_name.get(path.stem, {})}
    if len(matches) > 1 and path.parent.name:
        in_folder = [
            id
            for id, utterance in matches.items()
            if path.parent.name == PureWindowsPath(id).parent.name
            or (utterance.audio and path.parent.name == utterance.audio.parent.name)
        ]
        if len(in_folder) == 1:
            return in_folder
    return list(matches)


def _validation_column(train: Sequence[Utterance], test: Sequence[Utterance]) -> str:
    if all(utterance.dialogue is None for utterance in train):
        speakers = {utterance.speaker for utterance in train}
        if None not in speakers and not speakers & {utterance.speaker for utterance in test}:
            return "speaker"
    return "dialogue"


def _notes(
    split: SplitFile,
    ids: Mapping[str, str],
    usable: Collection[str],
    cut: Collection[str],
    used: Sequence[Collection[str]],
) -> Iterator[str]:
    names, file = _names(split), split.path.name
    unmatched = [name for name in names if name not in ids]
    if unmatched:
        yield (
            f"{len(unmatched)} of {len(names)} names in {file} match no utterance of this corpus "
            f"({_few(unmatched)})"
        )
    unusable = [name for name in ids if ids[name] not in usable]
    if unusable:
        yield (
            f"{len(unusable)} of {len(names)} names in {file} match utterances that cannot be "
            f"trained on ({_few(unusable)})"
        )
    in_some = set(used[0]).union(*used) - set(used[0]).intersection(*used)
    if in_some:
        yield (
            f"{len(in_some)} of the utterances in {file} are in some folds but not in all "
            f"({_few(sorted(in_some))})"
        )
    if cut:
        yield (
            f"{file} has no validation part: it was cut from the training part by whole "
            f"{' or '.join(f'{by}s' for by in cut)}"
        )


def _names(split: SplitFile) -> list[str]:
    """Return the distinct names in a file, in its order."""
    parts = (names for fold in split.folds.values() for names in fold.values())
    return list(dict.fromkeys(name for names in parts for name in names))


def _few(names: Collection[str]) -> str:
    shown = ", ".join(name for name, _ in zip(names, range(_SHOWN), strict=False))
    return f"{shown}, …" if len(names) > _SHOWN else shown
