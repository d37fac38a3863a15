"""A shard: the unit of work, of commit and of failure. Its name holds the hash of its bytes.

A shard is a Zarr folder or an HDF5 file, told apart by the suffix of its name. An entry may hold
both, so it can be converted shard by shard. A shard is self-contained: beside the features it
stores the position and the hashes of each utterance, from which an entry's index can be rebuilt.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .dtypes import stored_dtype
from .errors import CacheError, MissingShardError, damaged_shard
from .formats import FORMATS, format_of
from .formats.arrays import Array, StoredArray
from .identity import EntrySpec
from .storage.folder import Folder

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

# What the formats' libraries, Arrow and our own readers raise for damaged or hostile bytes.
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
    """The hidden states of one utterance, (layers, frames, dim), and the hash of its content.

    An :class:`EntryWriter` takes floating hidden states; a shard holds them in the entry's dtype.
    """

    id: str
    content_hash: str
    hidden_states: Array


def checksum(states: Array) -> str:
    """Return 32 hexadecimal digits: the hash of an array's numbers as they are stored.

    It hashes the array in C order and little-endian, so format and place do not change it.
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
    """Commit one shard completely or not at all, and return its name.

    Args:
        shards: the folder of the shards.
        number: the number of the job, with which the name begins.
        utterances: their arrays have one dtype and, except for the frames, one shape.
        facts: stored beside the arrays. ``written`` is the time of writing (ISO 8601, UTC); of two
            copies of an utterance, the later one counts. A rewritten shard has the time of the
            original, a ``/`` and its own time. ``run`` names the record of the run, and ``scale``
            is the digest of the scale of ``int8`` codes.
        store: a key of ``FORMATS``.
        compression: one of ``COMPRESSIONS``.
    """
    lengths = [utterance.hidden_states.shape[1] for utterance in utterances]
    attributes = {
        "ids": [utterance.id for utterance in utterances],
        "offsets": [0, *np.cumsum(lengths)[:-1].tolist()],
        "lengths": lengths,
        "content_hashes": [utterance.content_hash for utterance in utterances],
        "checksums": [checksum(utterance.hidden_states) for utterance in utterances],
        "compression": compression,
        **facts,
    }
    states = np.concatenate([utterance.hidden_states for utterance in utterances], axis=1)
    store_format = FORMATS[store]
    with shards.workspace() as built:
        store_format.write(built, states, attributes, compression)
        name = f"{number:05}-{content_hash(built)}{store_format.suffix}"
        shards.commit(built, name)
    return name


def read_facts(shards: Folder, name: str) -> Mapping[str, Any]:
    """Return everything that a shard stores beside its features.

    Raises:
        DamagedError: the shard is damaged or missing.
    """
    with translate_damage(shards, name):
        return format_of(name).read_attributes(shards, name)


def read_rows(shards: Folder, name: str) -> pa.Table:
    """Return the positions of the utterances in a shard, as a table of ``SCHEMA``.

    Raises:
        DamagedError: the shard is damaged or missing.
    """
    facts = read_facts(shards, name)
    with translate_damage(shards, name):
        columns = {column: facts[key] for column, key in _COLUMNS.items()}
        count = len(facts["ids"])
        columns |= {"shard": [name] * count, "written": [facts["written"]] * count}
        ordered = {column: columns[column] for column in SCHEMA.names}
        return checked_rows(pa.table(ordered, schema=SCHEMA))


def checked_rows(table: pa.Table) -> pa.Table:
    """Return a table of ``SCHEMA`` if its values are possible, or raise ``ValueError``."""
    if any(column.null_count for column in table.columns):
        raise ValueError("a value is missing")
    # Not compared with Python's numbers: to convert one, pyarrow imports pandas for a second.
    least = [pc.min(table[name]).as_py() for name in ("offset", "length")]
    if len(table) and (least[0] < 0 or least[1] < 1):
        raise ValueError("an utterance is outside its shard")
    for name in table["shard"].unique().to_pylist():
        if not NAME.fullmatch(str(name)):
            raise ValueError(f"'{name}' is not a name of a shard")
    return table


def open_shard(shards: Folder, name: str, spec: EntrySpec) -> StoredArray:
    """Return the array of a shard of an entry.

    Raises:
        DamagedError: the shard is damaged, or belongs to another entry.
        MissingShardError: the shard is missing.
    """
    with translate_damage(shards, name):
        array = format_of(name).open_array(shards, name)
    form = (array.shape[0], array.shape[2], array.dtype)
    if form != (len(spec.layers), spec.dim, stored_dtype(spec.dtype)):
        reason = "the form of its arrays differs from this entry's"
        raise damaged_shard(shards, name, reason)
    return array


def content_hash(built: Path) -> str:
    """Return 32 hexadecimal digits: the hash of a local file, or of all files of a folder."""
    whole = hashlib.sha256()
    files = [file for file in _everything(built) if file.is_file() and not file.is_symlink()]
    if not files:
        raise FileNotFoundError(built)
    # Operating systems put hidden files of their own into folders.
    files = [file for file in files if file == built or not file.name.startswith(".")]
    for file in sorted(files, key=lambda file: file.relative_to(built).as_posix()):
        with file.open("rb") as content:
            whole.update(file.relative_to(built).as_posix().encode())
            whole.update(hashlib.file_digest(content, "sha256").digest())
    return whole.hexdigest()[:32]


def _everything(path: Path) -> list[Path]:
    """Return a path and all below it; raises ``OSError`` if a folder cannot be read."""

    def fail(error: OSError) -> None:
        if not isinstance(error, NotADirectoryError):
            raise error

    found = [path]
    for folder, folders, files in os.walk(path, onerror=fail):
        found += [Path(folder) / name for name in (*folders, *files)]
    return found


def stored_hash(shards: Folder, name: str) -> str:
    """Return the :func:`content_hash` of a shard in the cache."""
    with shards.local(name) as path:
        return content_hash(path)


@contextmanager
def translate_damage(shards: Folder, name: str) -> Iterator[None]:
    """Turn errors of the formats' libraries into a sentence that names the shard.

    Raises:
        MissingShardError: a file of the shard is missing.
        DamagedError: the content of the shard is damaged.
    """
    try:
        yield
    except CacheError:  # some of them are also an OSError
        raise
    except FileNotFoundError as error:
        raise MissingShardError(
            f"shard {name} of {shards} is missing, or a part of it is"
        ) from error
    except DAMAGE as error:
        raise damaged_shard(shards, name, " ".join(f"{error!r}".split())) from error
