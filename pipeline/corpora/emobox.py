"""A corpus of EmoBox (Ma et al., Interspeech 2024), by the metadata of github.com/emo-box/EmoBox.

    ROOT/casia.jsonl                            a line a clip: key, wav, emo, …
    ROOT/label_map.json                         EmoBox's name of each label (or label_dict.json)
    ROOT/fold_1/casia_train_fold_1.jsonl        and …_test_…, in some corpora …_valid_…
    ROOT/../../downloads/casia/…                the clips, whose paths start at EmoBox's folder

ROOT is the folder of one corpus, such as ``EmoBox/data/casia``. The name of the corpus is then
``emobox-casia``. With one fold, its parts are the official splits. With several, their test parts
divide the corpus; the session of an utterance is the fold that tests it, and the protocol
``leave-one-session-out`` gives EmoBox's folds, as far as train and test parts go: EmoBox draws its
validation part when it trains. The metadata has no texts and no speakers.

Layout and faults as of commit 10cc3d1: ``emodb`` has a second, older set of lists
(``emodb_test_fold1.jsonl``); its map says ``Neutral`` for the label ``neutral``; utterances of
``mer2023`` are in no list; the clips of ``pavoque`` are stretches of long files.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import PipelineError
from .tables import read_table, unreadable
from .utterance import Corpus, Utterance

_LIST = r"{name}_(?P<part>train|valid|test)_(?P<fold>fold_[0-9]+)\.jsonl"
_SPLITS = {"train": "train", "valid": "validation", "test": "test"}
_MAPS = ("label_map.json", "label_dict.json")
_AGAIN = "take the file from EmoBox's repository again"


def load(root: Path) -> Corpus:
    """Read the corpus whose EmoBox metadata is in the folder ``root``.

    Raises:
        PipelineError: the metadata is missing or damaged, its folds overlap, or its clips are
            stretches of longer files.
    """
    name = root.absolute().name
    metadata = root / f"{name}.jsonl"
    if not metadata.is_file():
        raise PipelineError(
            f"{root} has no EmoBox metadata '{name}.jsonl': give the folder of one corpus, such as "
            "EmoBox/data/iemocap"
        )
    labels = _label_map(root)
    parts = _parts(root, name)
    sessions = {} if len(parts) == 1 else _tested(parts, root)
    splits = _splits(parts, root) if len(parts) == 1 else {}
    utterances, in_no_list, unmapped = [], 0, 0
    for place, row in read_table(metadata, required=("key", "wav", "emo")):
        try:
            key, wav, emotion = (_text(row, column) for column in ("key", "wav", "emo"))
        except KeyError as error:
            raise PipelineError(f"{metadata}, {place}: it has no {error}: {_AGAIN}") from error
        if row.get("start_time") is not None:
            raise PipelineError(
                f"{metadata}, {place}: its clip is a stretch of '{wav}': cut the clips out and "
                "give them in a manifest"
            )
        if key not in (splits or sessions):
            in_no_list += 1
            continue
        label = labels.get(emotion.casefold())
        unmapped += label is None
        utterances.append(
            Utterance(
                id=key,
                audio=root.absolute().parents[1] / wav,
                text=None,
                label=label,
                speaker=None,
                session=sessions.get(key),
                dialogue=None,
                turn=None,
                split=splits.get(key),
            )
        )
    notes = []
    if in_no_list:
        notes.append(f"{in_no_list} utterances of {name} are in no list of EmoBox: left out")
    if unmapped:
        notes.append(f"{unmapped} labels of {name} are not in EmoBox's map: these have no label")
    return Corpus(
        f"emobox-{name}",
        utterances,
        tuple(dict.fromkeys(labels.values())),
        "official" if splits else "leave-one-session-out",
        notes=tuple(notes),
    )


def _label_map(root: Path) -> dict[str, str]:
    """Return EmoBox's name of each label, whose key is in small letters."""
    path = next((root / name for name in _MAPS if (root / name).is_file()), None)
    if path is None:
        raise PipelineError(f"{root} has no '{_MAPS[0]}', which names the emotions: {_AGAIN}")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        return {str(label).casefold(): str(name) for label, name in content.items()}
    except (ValueError, AttributeError) as error:
        raise unreadable(str(path), "JSON", error, _AGAIN) from error


def _parts(root: Path, name: str) -> dict[str, dict[str, frozenset[str]]]:
    """Return fold → part → the keys in its list."""
    form = re.compile(_LIST.format(name=re.escape(name)))
    parts: dict[str, dict[str, frozenset[str]]] = {}
    for path in sorted(root.glob("fold_*/*.jsonl")):
        match = form.fullmatch(path.name)
        if match:
            keys = frozenset(str(cells.get("key")) for _, cells in read_table(path))
            parts.setdefault(match["fold"], {})[match["part"]] = keys
    if not parts or any(
        not of_fold.get(p) for of_fold in parts.values() for p in ("train", "test")
    ):
        raise PipelineError(
            f"{root} has no complete fold such as fold_1/{name}_train_fold_1.jsonl and "
            f"{name}_test_fold_1.jsonl: take the folder from EmoBox's repository again"
        )
    return parts


def _splits(parts: Mapping[str, Mapping[str, frozenset[str]]], root: Path) -> dict[str, str]:
    (of_fold,) = parts.values()
    splits: dict[str, str] = {}
    for part, keys in of_fold.items():
        if shared := splits.keys() & keys:
            raise PipelineError(f"{root}: '{min(shared)}' is in two parts of a fold: {_AGAIN}")
        splits |= dict.fromkeys(keys, _SPLITS[part])
    return splits


def _tested(parts: Mapping[str, Mapping[str, frozenset[str]]], root: Path) -> dict[str, str]:
    """Return the fold that tests each utterance; the training parts must be the other folds."""
    fold_of: dict[str, str] = {}
    for fold, of_fold in parts.items():
        if shared := fold_of.keys() & of_fold["test"]:
            raise PipelineError(f"{root}: '{min(shared)}' is tested in two folds: {_AGAIN}")
        fold_of |= dict.fromkeys(of_fold["test"], fold)
    for fold, of_fold in parts.items():
        others = {key for key, of_key in fold_of.items() if of_key != fold}
        if of_fold["train"] | of_fold.get("valid", frozenset()) != others:
            raise PipelineError(
                f"{root}: the training part of {fold} is not that of all other folds: give the "
                f"folds with --protocol file:{root}, and the clips in a manifest"
            )
    return fold_of


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if not isinstance(value, str) or not value:
        raise KeyError(column)
    return value
