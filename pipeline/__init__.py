"""The two stages, over what they share: corpora, metrics, and the files of an encoder."""
