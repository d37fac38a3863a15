"""What the cache raises."""


class CacheError(Exception):
    """The cache cannot do what was asked; the message is one sentence that says what to do."""


class MissingShardError(CacheError):
    """A shard that should be there is not."""
