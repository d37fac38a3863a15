"""Features that another tool has written, in one of three forms, read one utterance at a time.

    FOLDER/<id>.npy             one array an utterance, (frames, dim) or (layers, frames, dim);
                                or any files, where FOLDER/ids.csv (columns id,file) names the ids
    FILE.npz                    feats (all frames, dim) or (layers, all frames, dim), lengths, keys
    FILE.npy + FILE.lengths     the same feats, and one integer a line: emotion2vec's form;
                                FILE.emo names the ids, its first field a line

Nothing is ever unpickled: a pickle runs the code of whoever wrote it.
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..corpora.directory_walk import folders_below
from ..errors import PipelineError, UsageError
from .arrays import Array, UnusableError, map_npy, open_npz

INDEX = "ids.csv"
RECORD = "entry.json"


@dataclass(frozen=True)
class Stored:
    """The features of one utterance where they lie; only ``load`` reads them.

    ``load`` returns (frames, dim) or (layers, frames, dim) of any dtype, or raises
    ``UnusableError`` where the utterance's own file cannot be read.
    """

    id: str
    load: Callable[[], Array]


@dataclass(frozen=True)
class Source:
    """All features of a source, in its own order; ``layers`` are their numbers if it tells them."""

    path: Path
    features: tuple[Stored, ...]
    layers: tuple[int, ...] | None = None


def open_source(path: Path, ids: Sequence[str] | None = None) -> Source:
    """Find out in which of the three forms ``path`` is, and what it holds.

    ``ids`` are those of a manifest, in its order: they count where the source names none.

    Raises:
        UsageError: there is nothing at ``path``, or it names no ids and none are given.
        PipelineError: what is there is in none of the forms, or contradicts itself.
    """
    if path.is_dir():
        source = _folder(path)
    elif not path.exists():
        raise UsageError(f"there is no '{path}': give a folder of .npy files, an .npz or an .npy")
    elif path.suffix == ".npz":
        source = _npz(path)
    elif path.suffix == ".npy":
        source = _npy_and_lengths(path, ids)
    else:
        raise PipelineError(
            f"{path} holds no features that can be imported: give a folder of .npy files, an .npz "
            "with feats, lengths and keys, or an .npy that has a .lengths beside it"
        )
    _check_ids(path, [one.id for one in source.features])
    return source


# A folder -----------------------------------------------------------------------------------------


def _folder(path: Path) -> Source:
    index = path / INDEX
    files = list(_indexed(path, index) if index.is_file() else _found(path))
    if not files:
        raise PipelineError(f"{path} holds no .npy file: give the folder that holds <id>.npy")
    features = [Stored(id, partial(map_npy, file)) for id, file in files]
    return Source(path, tuple(features), _layers(path / RECORD))


def _found(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield each ``<id>.npy`` below ``folder``, also behind links, sorted by id."""
    files = {}
    for below, _, names in folders_below(folder):
        for name in names:
            file = below / name
            # macOS puts a ._ file beside each on a foreign disk.
            if file.suffix == ".npy" and not name.startswith("._"):
                files[file.relative_to(folder).as_posix().removesuffix(".npy")] = file
    for id, file in sorted(files.items()):
        if file.with_suffix(".lengths").exists():
            raise PipelineError(
                f"{folder} holds '{id}.npy' with '{id}.lengths', which are the features of many "
                f"utterances: give the file, {file}, and not the folder"
            )
        yield id, file


def _indexed(folder: Path, index: Path) -> Iterator[tuple[str, Path]]:
    """Yield what ``ids.csv`` names; it may name nothing outside its folder."""
    inside = folder.resolve()
    try:
        with index.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if {"id", "file"} - set(rows.fieldnames or ()):
                raise PipelineError(f"{index} has not the columns 'id' and 'file': name them so")
            for row in rows:
                id, name = row["id"], row["file"]
                if id is None or name is None:
                    raise PipelineError(f"{index}, line {rows.line_num}: give an id and a file")
                target = folder / name
                if "\0" in name or not target.resolve().is_relative_to(inside):
                    raise PipelineError(
                        f"{index}, line {rows.line_num}: {name!r} lies outside the folder, and "
                        "nothing is read from there: move it in"
                    )
                yield id, target
    except UnicodeDecodeError as error:
        raise PipelineError(f"{index} is not UTF-8 ({error}): convert it") from error
    except csv.Error as error:
        raise PipelineError(f"{index} is no CSV file ({error}): write it with commas") from error


def _layers(record: Path) -> tuple[int, ...] | None:
    """Return the layer numbers that our own export wrote beside the features."""
    try:
        layers = tuple(json.loads(record.read_bytes())["layers"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # somebody else's file, or none
    return layers if all(type(layer) is int for layer in layers) else None


# One file with all --------------------------------------------------------------------------------


def _npz(path: Path) -> Source:
    arrays = open_npz(path, ("feats", "lengths", "keys"))
    feats, lengths, keys = arrays["feats"], arrays["lengths"], arrays["keys"]
    if keys.ndim != 1 or keys.dtype.kind not in "US":
        raise PipelineError(f"the keys in {path} are {keys.dtype}: store a list of texts, the ids")
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise PipelineError(f"the lengths in {path} are {lengths.dtype}: store a list of integers")
    try:
        ids = [key if isinstance(key, str) else key.decode() for key in keys.tolist()]
    except UnicodeDecodeError as error:
        raise PipelineError(f"the keys in {path} are not UTF-8 ({error}): convert them") from error
    return _cut(path, feats, lengths.tolist(), ids, "keys")


def _npy_and_lengths(path: Path, manifest_ids: Sequence[str] | None) -> Source:
    lengths_file, ids_file = path.with_suffix(".lengths"), path.with_suffix(".emo")
    if not lengths_file.is_file():
        raise PipelineError(
            f"{path} has no {lengths_file.name} beside it to say where each utterance ends: "
            "add it, or give a folder of <id>.npy"
        )
    lengths = []
    for number, line in enumerate(_lines(lengths_file), start=1):
        try:
            lengths.append(int(line))
        except ValueError:
            raise PipelineError(
                f"{lengths_file}, line {number}: {line!r} is no whole number: write the frames of "
                "one utterance a line"
            ) from None
    if ids_file.is_file():
        ids: Sequence[str] = [_first_field(line) for line in _lines(ids_file)]
        named_by = f"lines in {ids_file.name}"
    elif manifest_ids is None:
        raise UsageError(
            f"{path} has no {ids_file.name} beside it, so nothing says which utterance is which: "
            "give --manifest, with the utterances in the same order"
        )
    else:
        ids, named_by = manifest_ids, "utterances in the manifest"
    try:
        feats = map_npy(path)
    except UnusableError as error:
        raise PipelineError(f"{path}: {error.detail}") from error
    return _cut(path, feats, lengths, ids, named_by)


def _cut(
    path: Path, feats: Array, lengths: Sequence[int], ids: Sequence[str], named_by: str
) -> Source:
    """Cut the frames of all utterances, end to end, into utterances."""
    if feats.ndim not in (2, 3):
        raise PipelineError(
            f"the features in {path} have the shape {feats.shape}: give (frames, dim) or "
            "(layers, frames, dim)"
        )
    if len(ids) != len(lengths):
        raise PipelineError(
            f"{path} has {len(lengths)} lengths and {len(ids)} {named_by}: "
            "there must be one for each utterance"
        )
    if any(length < 0 for length in lengths):
        raise PipelineError(f"the lengths of {path} hold {min(lengths)}: give 0 or more frames")
    if sum(lengths) != feats.shape[-2]:
        raise PipelineError(
            f"the lengths of {path} add up to {sum(lengths)} frames, and it holds "
            f"{feats.shape[-2]}: give the lengths that belong to it"
        )
    bounds = pairwise(accumulate(lengths, initial=0))
    return Source(
        path,
        tuple(
            Stored(id, partial(_frames, feats, start, stop))
            for id, (start, stop) in zip(ids, bounds, strict=True)
        ),
    )


def _frames(feats: Array, start: int, stop: int) -> Array:
    part: np.ndarray[Any, Any] = feats[..., start:stop, :]
    return part


def _first_field(line: str) -> str:
    return line.split("\t", maxsplit=1)[0] if "\t" in line else (line.split() or [""])[0]


def _lines(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return "".join(file).rstrip().split("\n")
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path} is not UTF-8 ({error}): convert it") from error


def _check_ids(path: Path, ids: Sequence[str]) -> None:
    twice = [id for id, count in Counter(ids).items() if count > 1]
    if twice:
        raise PipelineError(
            f"{path} names {len(twice)} utterances twice, such as {twice[0]!r}: "
            "an id must be unique"
        )
    for id in ids:
        try:
            id.encode()
        except UnicodeEncodeError:  # the name of a file may hold any bytes
            raise PipelineError(
                f"{path} names an utterance {id!r}, which is not UTF-8: rename it"
            ) from None
