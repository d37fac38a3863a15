"""The file of an entry's scale: ``scale.npz``, written once, before the first shard."""

from collections.abc import Callable, Iterable
from contextlib import suppress

from .errors import CacheError, DamagedError
from .formats.arrays import Array
from .identity import EntrySpec
from .scale import FILE, Scale
from .storage.folder import Folder

ADVICE = (
    "'mser cache verify --repair' removes the features, which have no meaning without it, and the "
    "next 'mser extract' extracts them again"
)


def has_scale(spec: EntrySpec) -> bool:
    """Return whether the entries of this dtype have a scale."""
    return spec.dtype == "int8"


def read_scale(folder: Folder, spec: EntrySpec) -> Scale:
    """Return the scale of an ``int8`` entry.

    Raises:
        FileNotFoundError: the entry has none yet.
        DamagedError: the file is damaged, or is not the scale of such an entry.
    """
    content = folder.read(FILE)
    try:
        return Scale.from_bytes(content, (len(spec.layers), spec.dim))
    except ValueError as error:
        raise DamagedError(f"{folder}/{FILE} is damaged ({error}): {ADVICE}") from error


def scale_for_reading(folder: Folder, spec: EntrySpec) -> Scale | None:
    """Return the scale that a reader of an entry needs; ``None`` if its dtype has none.

    Raises:
        DamagedError: it is damaged or missing.
    """
    if not has_scale(spec):
        return None
    try:
        return read_scale(folder, spec)
    except FileNotFoundError:
        raise DamagedError(f"{folder}/{FILE} is missing: {ADVICE}") from None


def scale_for_writing(
    folder: Folder,
    spec: EntrySpec,
    utterances: Callable[[], Iterable[Array]],
    shards: Callable[[], list[str]],
) -> Scale | None:
    """Return the scale of an entry, computed from ``utterances`` if the entry has none yet.

    Of several writers, the first one's scale is that of the entry, and all return it.

    Args:
        folder: the folder of the entry.
        spec: its identity; ``None`` is returned if its dtype has no scale.
        utterances: returns hidden states (layers, frames, dim), finite; called if they are needed.
        shards: returns the names of the shards of the entry.

    Raises:
        DamagedError: the scale is damaged, or is missing although the entry has shards.
        CacheError: the cache cannot be written.
    """
    if not has_scale(spec):
        return None
    with suppress(FileNotFoundError):
        return read_scale(folder, spec)
    if shards():
        # Another writer may have made both since: with its scale, this is no damage.
        return scale_for_reading(folder, spec)
    return keep_scale(folder, spec, Scale.of(utterances()))


def keep_scale(folder: Folder, spec: EntrySpec, scale: Scale) -> Scale:
    """Write a scale, unless the entry has one, and return the scale of the entry."""
    if folder.create(FILE, scale.to_bytes()):
        return scale
    try:
        return read_scale(folder, spec)
    except FileNotFoundError:
        raise CacheError(
            f"{folder}/{FILE} was deleted by another process: run the same command again"
        ) from None
