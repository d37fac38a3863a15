"""The files of other tools from which features are imported, one utterance at a time.

    FOLDER/<id>.npy             one array per utterance, (frames, dim) or (layers, frames, dim);
                                file names may differ if FOLDER/ids.csv (columns id,file) gives them
    FILE.npz                    feats (all frames, dim) or (layers, all frames, dim), lengths, keys
    FILE.npy + FILE.lengths     emotion2vec's form: the same feats, and one integer per line;
                                the first field of each line in FILE.emo is an id

Nothing is ever unpickled, because a pickle can run any code.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.formats.arrays import Array
from ..corpora.directory_walk import folders_below
from ..corpora.tables import read_table
from ..errors import PipelineError, UsageError
from .arrays import UnusableError, map_npy, open_npz

INDEX = "ids.csv"
RECORD = "entry.json"


@dataclass(frozen=True)
class LazyFeatures:
    """The features of one utterance, which only ``load`` reads.

    ``load`` returns (frames, dim) or (layers, frames, dim) of any dtype, or raises
    ``UnusableError`` if the utterance's own file cannot be read.
    """

    id: str
    load: Callable[[], Array]


@dataclass(frozen=True)
class FeatureSource:
    """All features of a source, in its own order; ``layers`` are their numbers if it has them."""

    path: Path
    features: tuple[LazyFeatures, ...]
    layers: tuple[int, ...] | None = None


def open_source(path: Path, ids: Sequence[str] | None = None) -> FeatureSource:
    """Open features in any of the three forms above.

    ``ids`` are those of a manifest, in its order; they are used if the source has no ids.

    Raises:
        UsageError: there is nothing at ``path``, or it has no ids and none are given.
        PipelineError: ``path`` has none of the forms, or is inconsistent.
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
            f"{path} has none of the forms that can be imported: give a folder of .npy files, an "
            ".npz with feats, lengths and keys, or an .npy with a .lengths beside it"
        )
    _check_ids(path, [features.id for features in source.features])
    return source


# A folder -----------------------------------------------------------------------------------------


def _folder(path: Path) -> FeatureSource:
    index = path / INDEX
    files = list(_indexed(path, index) if index.is_file() else _by_name(path))
    if not files:
        raise PipelineError(f"{path} contains no .npy file: give the folder that contains <id>.npy")
    features = [LazyFeatures(id, partial(map_npy, file)) for id, file in files]
    return FeatureSource(path, tuple(features), _layers(path / RECORD))


def _by_name(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield each ``<id>.npy`` below ``folder``, sorted by id; links are followed."""
    files = {}
    for below, _, names in folders_below(folder):
        for name in names:
            file = below / name
            # macOS writes a companion file ._NAME beside each file on some disks.
            if file.suffix == ".npy" and not name.startswith("._"):
                files[file.relative_to(folder).as_posix().removesuffix(".npy")] = file
    for id, file in sorted(files.items()):
        if file.with_suffix(".lengths").exists():
            raise PipelineError(
                f"{folder} contains '{id}.npy' with '{id}.lengths', the features of many "
                f"utterances in one file: give the file, {file}, instead of the folder"
            )
        yield id, file


def _indexed(folder: Path, index: Path) -> Iterator[tuple[str, Path]]:
    """Yield the ids and files of ``ids.csv``; each file must be inside the folder."""
    inside = folder.resolve()
    for place, row in read_table(index, ("id", "file"), required=("id", "file")):
        name = row["file"]
        if not name:
            raise PipelineError(f"{index}, {place}: it has no file: give an id and a file")
        file = folder / name
        if "\0" in name or not file.resolve().is_relative_to(inside):
            raise PipelineError(
                f"{index}, {place}: {name!r} is outside the folder, and no file outside is read: "
                "move it into the folder"
            )
        yield row["id"], file


def _layers(record: Path) -> tuple[int, ...] | None:
    """Return the layer numbers that ``mser cache export`` wrote beside the features."""
    try:
        layers = tuple(json.loads(record.read_bytes())["layers"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # there is no such file, or another tool wrote it
    return layers if all(type(layer) is int for layer in layers) else None


# One file for all utterances ----------------------------------------------------------------------


def _npz(path: Path) -> FeatureSource:
    arrays = open_npz(path, ("feats", "lengths", "keys"))
    feats, lengths, keys = arrays["feats"], arrays["lengths"], arrays["keys"]
    if keys.ndim != 1 or keys.dtype.kind not in "US":
        raise PipelineError(f"the keys in {path} are {keys.dtype}: store the ids as strings")
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise PipelineError(f"the lengths in {path} are {lengths.dtype}: store a list of integers")
    try:
        ids = [key if isinstance(key, str) else key.decode() for key in keys.tolist()]
    except UnicodeDecodeError as error:
        raise PipelineError(f"the keys in {path} are not UTF-8 ({error}): convert them") from error
    return _cut(path, feats, lengths.tolist(), ids, "keys")


def _npy_and_lengths(path: Path, manifest_ids: Sequence[str] | None) -> FeatureSource:
    lengths_file, ids_file = path.with_suffix(".lengths"), path.with_suffix(".emo")
    if not lengths_file.is_file():
        raise PipelineError(
            f"{path} has no {lengths_file.name} beside it, which gives the number of frames per "
            "utterance: add it, or give a folder of <id>.npy"
        )
    lengths = []
    for number, line in enumerate(_lines(lengths_file), start=1):
        try:
            lengths.append(int(line))
        except ValueError:
            raise PipelineError(
                f"{lengths_file}, line {number}: {line!r} is not a whole number: write the number "
                "of frames of one utterance per line"
            ) from None
    if ids_file.is_file():
        ids: Sequence[str] = [_first_field(line) for line in _lines(ids_file)]
        named_by = f"lines in {ids_file.name}"
    elif manifest_ids is None:
        raise UsageError(
            f"{path} has no {ids_file.name} with the ids beside it: give --manifest, with the "
            "utterances in the same order"
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
) -> FeatureSource:
    """Cut the concatenated frames of all utterances into utterances."""
    if feats.ndim not in (2, 3):
        raise PipelineError(
            f"the features in {path} have the shape {feats.shape}: give (frames, dim) or "
            "(layers, frames, dim)"
        )
    if len(ids) != len(lengths):
        raise PipelineError(
            f"{path} has {len(lengths)} lengths but {len(ids)} {named_by}: give one of each per "
            "utterance"
        )
    if any(length < 0 for length in lengths):
        raise PipelineError(f"a length of {path} is {min(lengths)}: give 0 or more frames")
    if sum(lengths) != feats.shape[-2]:
        raise PipelineError(
            f"the lengths of {path} add up to {sum(lengths)} frames, but it has "
            f"{feats.shape[-2]}: give the lengths of these features"
        )
    bounds = pairwise(accumulate(lengths, initial=0))
    return FeatureSource(
        path,
        tuple(
            LazyFeatures(id, partial(_frames, feats, start, stop))
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
            f"{path} has {len(twice)} ids more than once, such as {twice[0]!r}: give each "
            "utterance its own id"
        )
    for id in ids:
        try:
            id.encode()
        except UnicodeEncodeError:  # a file name may contain any bytes
            raise PipelineError(
                f"{path} has an utterance {id!r}, whose name is not UTF-8: rename it"
            ) from None
