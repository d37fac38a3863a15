"""From the names in a split file to the utterances of a corpus."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath

from ..corpora import Utterance
from ..errors import PipelineError
from .folds import PAIRS, PARTS, Fold, Splits, cut_validation
from .split_files import SplitFile, read_split_file

_SHOWN = 3  # names in a sentence


def split_by_file(
    path: Path, utterances: Sequence[Utterance], corpus: Sequence[Utterance] | None = None
) -> Splits:
    """Divide ``utterances`` as a split file says.

    A name is an id, or a path or file name whose stem is that of an id or of a clip. It is sought
    in all of ``corpus``, of which ``utterances`` are those that can be trained on. Parts are in the
    order of the file. A fold without a validation part has it cut from its training part by whole
    dialogues; or by whole speakers where the corpus has no dialogues and the file keeps the
    speakers of the training and the test part apart.

    Raises:
        UsageError: there is no such file, or it is of no kind that can be read.
        PipelineError: the file cannot be understood, no name in it is an utterance's, or one is
            that of several.
    """
    split = read_split_file(path)
    ids = _match(split, utterances if corpus is None else corpus)
    usable = {one.id: one for one in utterances}
    folds: list[Fold] = []
    cut: dict[str, None] = {}
    for name, names in split.folds.items():
        found = {
            part: tuple(usable[ids[one]] for one in names.get(part, ()) if ids.get(one) in usable)
            for part in PARTS
        }
        if not names.get("validation") and found["train"]:
            by = _what_to_keep_whole(found["train"], found["test"])
            found["train"], found["validation"] = cut_validation(found["train"], by)
            cut[by] = None
        folds.append(Fold(name, found["train"], found["validation"], found["test"]))
    used = [{one.id for part in PARTS for one in fold.part(part)} for fold in folds]
    left_out = usable.keys() - set[str]().union(*used)
    return Splits(
        tuple(folds),
        dict.fromkeys(PAIRS, ("id",)),
        tuple(_notes(split, ids, usable, cut, used)),
        {id: f"in no part of {path.name}" for id in usable if id in left_out},
    )


def _match(split: SplitFile, corpus: Sequence[Utterance]) -> dict[str, str]:
    """Return the id that each name in a file stands for; a name that is nobody's is not in it."""
    by_id = {one.id for one in corpus}
    by_name: defaultdict[str, dict[str, Utterance]] = defaultdict(dict)
    for one in corpus:
        for path in (one.id, *([str(one.audio)] if one.audio else [])):
            for name in {PureWindowsPath(path).name, PureWindowsPath(path).stem}:
                by_name[name][one.id] = one
    ids: dict[str, str] = {}
    several: dict[str, list[str]] = {}
    names = _names(split)
    for name in names:
        found = [name] if name in by_id else _sought(name, by_name)
        if len(found) == 1:
            ids[name] = found[0]
        elif found:
            several[name] = found
    if several:
        example = next(iter(several.values()))
        raise PipelineError(
            f"{len(several)} of {len(names)} names in {split.path} are those of several utterances "
            f"({_few(several)}): write ids of the corpus instead, such as {example[0]}"
        )
    if not ids:
        own = _few([one.id for one in corpus])
        raise PipelineError(
            f"none of the {len(names)} names in {split.path} ({_few(names)}) is that of an "
            f"utterance of this corpus ({own}): give a split file of this corpus"
        )
    return ids


def _sought(name: str, by_name: Mapping[str, Mapping[str, Utterance]]) -> list[str]:
    """Find a path or a file name; where several have its stem, its folder decides between them.

    MELD has dia0_utt0.mp4 in each of its three folders of clips.
    """
    path = PureWindowsPath(name)  # it takes / as well
    found = {**by_name.get(path.name, {}), **by_name.get(path.stem, {})}
    if len(found) > 1 and path.parent.name:
        nearer = [
            id
            for id, one in found.items()
            if path.parent.name
            in (PureWindowsPath(id).parent.name, one.audio.parent.name if one.audio else None)
        ]
        if len(nearer) == 1:
            return nearer
    return list(found)


def _what_to_keep_whole(train: Sequence[Utterance], test: Sequence[Utterance]) -> str:
    if all(one.dialogue is None for one in train):
        speakers = {one.speaker for one in train}
        if None not in speakers and not speakers & {one.speaker for one in test}:
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
    nobody = [name for name in names if name not in ids]
    if nobody:
        yield (
            f"{len(nobody)} of {len(names)} names in {file} are no utterance's of this corpus "
            f"({_few(nobody)})"
        )
    unusable = [name for name in ids if ids[name] not in usable]
    if unusable:
        yield (
            f"{len(unusable)} of {len(names)} names in {file} are of utterances that cannot be "
            f"trained on ({_few(unusable)})"
        )
    everywhere = set(used[0]).intersection(*used)
    somewhere = set(used[0]).union(*used)
    if len(everywhere) < len(somewhere):
        yield (
            f"of the utterances in {file}, {len(somewhere - everywhere)} are in some folds and not "
            f"in others ({_few(sorted(somewhere - everywhere))})"
        )
    if cut:
        yield (
            f"{file} has no validation part: it was cut from the training part by whole "
            f"{' or '.join(f'{by}s' for by in cut)}"
        )


def _names(split: SplitFile) -> list[str]:
    """Return the different names in a file, in its order."""
    parts = (names for fold in split.folds.values() for names in fold.values())
    return list(dict.fromkeys(name for names in parts for name in names))


def _few(names: Collection[str]) -> str:
    shown = ", ".join(name for name, _ in zip(names, range(_SHOWN), strict=False))
    return f"{shown}, …" if len(names) > _SHOWN else shown
