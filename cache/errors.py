"""The exceptions of the cache. Each message is one sentence that names the place and the remedy.

Absent, forbidden, damaged and ambiguous have a class each. All other errors (a full disk, an
unknown name, another format version) are plain :class:`CacheError`.
"""


class CacheError(Exception):
    """The base class of all errors of the cache."""


class NotFoundError(CacheError, FileNotFoundError):
    """The cache does not hold the dataset, entry, layer or manifest that was asked for."""


class UnknownUtteranceError(NotFoundError, KeyError):
    """The entry does not hold the utterance that was asked for."""


class AmbiguousEntryError(CacheError):
    """Several entries match; the message lists them with their keys."""


class NoAccessError(CacheError, PermissionError):
    """This user may not read, write or delete a file or folder of the cache."""


class DamagedError(CacheError):
    """A file of the cache is damaged, incomplete or forged."""


class MissingShardError(DamagedError):
    """A shard that the index names is missing, or a part of the shard is."""


def damaged_shard(shards: object, name: str, reason: str) -> DamagedError:
    """Return the error of a shard ``name`` in the folder ``shards`` that is damaged."""
    return DamagedError(f"shard {name} of {shards} is damaged: {reason}")
