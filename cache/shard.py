"""A shard: the unit of work, of commit and of failure. Its name says what its bytes are.

A shard is a Zarr folder or an HDF5 file, told apart by the suffix of its name, so that an entry may
hold both and be converted shard by shard. It is complete in itself: beside the features it says
which utterance lies where, with the hash of each, so that an entry's index can be made again.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .errors import CacheError, MissingShardError
from .formats import hdf5 as hdf5_format
from .formats import zarr as zarr_format
from .formats.arrays import Array, StoredArray
from .identity import EntrySpec
from .storage.folder import Folder

FORMATS: dict[str, ModuleType] = {"zarr": zarr_format, "hdf5": hdf5_format}
COMPRESSIONS = ("none", "zstd", "blosc")
NAME = re.compile(r"[0-9]{5,}-[0-9a-f]{32}(\.[a-z0-9]+)?")

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "shard": pa.dictionary(pa.int32(), pa.string()),
        "offset": pa.int64(),
        "length": pa.int64(),
        "content_hash": pa.string(),
        "checksum": pa.string(),
        "written": pa.dictionary(pa.int32(), pa.string()),
    }
)
_COLUMNS = {
    "id": "ids",
    "offset": "offsets",
    "length": "lengths",
    "content_hash": "content_hashes",
    "checksum": "checksums",
}

# What the formats' libraries, Arrow and our own readers make of damaged or hostile bytes.
DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
    SystemError,
    pa.ArrowException,
)


@dataclass(frozen=True)
class UtteranceFeatures:
    """The hidden states of one utterance, (layers, frames, dim), and the hash of its content."""

    id: str
    content_hash: str
    hidden_states: Array


def checksum(states: Array) -> str:
    """Return 32 hexadecimal digits: the hash of an array's numbers as they are stored.

    It is that of the array in C order and little-endian, whatever the format or the place.
    """
    stored = np.ascontiguousarray(states, states.dtype.newbyteorder("<"))
    return hashlib.sha256(stored.reshape(-1).view(np.uint8).data).hexdigest()[:32]


def write_shard(
    shards: Folder,
    number: int,
    utterances: Sequence[UtteranceFeatures],
    facts: Mapping[str, str],
    store: str,
    compression: str,
) -> str:
    """Commit one shard, whole or not at all, and return its name.

    The arrays are of one dtype and, but for the frames, of one shape. ``facts`` are kept beside
    them: ``written`` is the time of writing (ISO 8601, UTC), by which a newer copy of an utterance
    is told from an older one, and of a copy also the time of copying, behind a ``/``; ``run`` names
    the run's record.
    """
    lengths = [one.hidden_states.shape[1] for one in utterances]
    attributes = {
        "ids": [one.id for one in utterances],
        "offsets": [0, *np.cumsum(lengths)[:-1].tolist()],
        "lengths": lengths,
        "content_hashes": [one.content_hash for one in utterances],
        "checksums": [checksum(one.hidden_states) for one in utterances],
        "compression": compression,
        **facts,
    }
    states = np.concatenate([one.hidden_states for one in utterances], axis=1)
    chosen = FORMATS[store]
    with shards.workspace() as built:
        chosen.write(built, states, attributes, compression)
        name = f"{number:05}-{content_hash(built)}{chosen.SUFFIX}"
        shards.commit(built, name)
    return name


def check_form(store: str, compression: str) -> None:
    """Raise ``CacheError`` if there is no such format or compression."""
    for kind, name, known in (
        ("store", store, FORMATS),
        ("compression", compression, COMPRESSIONS),
    ):
        if name not in known:
            raise CacheError(f"there is no {kind} '{name}': choose one of {', '.join(known)}")


def read_facts(shards: Folder, name: str) -> Mapping[str, Any]:
    """Return all that a shard holds beside its features."""
    with damage_named(shards, name):
        facts: Mapping[str, Any] = _format(name).read_attributes(shards, name)
        return facts


def read_rows(shards: Folder, name: str) -> pa.Table:
    """Return where each utterance lies in a shard, as a table of ``SCHEMA``.

    Raises:
        CacheError: the shard is damaged.
    """
    facts = read_facts(shards, name)
    with damage_named(shards, name):
        columns = {column: facts[key] for column, key in _COLUMNS.items()}
        count = len(facts["ids"])
        columns |= {"shard": [name] * count, "written": [facts["written"]] * count}
        return checked_rows(pa.table({one: columns[one] for one in SCHEMA.names}, schema=SCHEMA))


def checked_rows(table: pa.Table) -> pa.Table:
    """Return a table of ``SCHEMA`` if it can be one of rows, or raise ``ValueError``."""
    if any(column.null_count for column in table.columns):
        raise ValueError("a value is missing")
    # Not compared with Python's numbers: to convert one, pyarrow imports pandas for a second.
    least = [pc.min(table[name]).as_py() for name in ("offset", "length")]
    if len(table) and (least[0] < 0 or least[1] < 1):
        raise ValueError("an utterance lies outside its shard")
    for name in table["shard"].unique().to_pylist():
        if not NAME.fullmatch(str(name)):
            raise ValueError(f"'{name}' cannot name a shard")
    return table


def open_shard(shards: Folder, name: str, spec: EntrySpec) -> StoredArray:
    """Return the array of a shard of an entry.

    Raises:
        CacheError: the shard is damaged, or is another entry's.
        MissingShardError: it is not there.
    """
    with damage_named(shards, name):
        array: StoredArray = _format(name).open_array(shards, name)
    form = (array.shape[0], array.shape[2], array.dtype)
    if form != (len(spec.layers), spec.dim, np.dtype(spec.dtype)):
        raise CacheError(f"shard {name} of {shards} is not one of this entry's: its arrays differ")
    return array


def content_hash(built: Path) -> str:
    """Return 32 hexadecimal digits: the hash of a local file, or of all files of a folder."""
    whole = hashlib.sha256()
    files = [file for file in (built, *built.rglob("*")) if file.is_file()]
    if not files:
        raise FileNotFoundError(built)
    # Systems leave hidden files of their own in folders.
    files = [file for file in files if file == built or not file.name.startswith(".")]
    for file in sorted(files, key=lambda file: file.relative_to(built).as_posix()):
        with file.open("rb") as content:
            whole.update(file.relative_to(built).as_posix().encode())
            whole.update(hashlib.file_digest(content, "sha256").digest())
    return whole.hexdigest()[:32]


def stored_hash(shards: Folder, name: str) -> str:
    """Return the same of a shard where it lies."""
    with shards.local(name) as path:
        return content_hash(path)


@contextmanager
def damage_named(shards: Folder, name: str) -> Iterator[None]:
    """Say of which shard it is that something is damaged."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingShardError(
            f"shard {name} of {shards} is missing, or a part of it is"
        ) from error
    except DAMAGE as error:
        reason = " ".join(f"{error!r}".split())
        raise CacheError(f"shard {name} of {shards} is damaged: {reason}") from error


def store_of(name: str) -> str:
    """Return in which of ``FORMATS`` a shard is, by the suffix of its name."""
    suffix = "".join(name.partition(".")[1:])
    for store, module in FORMATS.items():
        if suffix == module.SUFFIX:
            return store
    raise CacheError(f"shard {name} is in a format that this mser does not know")


def _format(name: str) -> ModuleType:
    return FORMATS[store_of(name)]
