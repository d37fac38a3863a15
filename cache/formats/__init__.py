"""Store formats: how the features of a shard lie in a file or folder."""
