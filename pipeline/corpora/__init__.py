"""Corpora by name: one file per corpus, with a function ``load(root) -> Corpus``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..plugins import Plugins
from . import (
    crema_d,
    emobox,
    emodb,
    esd,
    iemocap,
    meld,
    mosei,
    msp_podcast,
    ravdess,
    synthetic,
)
from .utterance import Corpus, PublishedCounts, Utterance

CORPORA: dict[str, Callable[[Path], Corpus]] = {
    "crema-d": crema_d.load,
    "emobox": emobox.load,
    "emodb": emodb.load,
    "esd": esd.load,
    "iemocap": iemocap.load,
    "meld": meld.load,
    "mosei": mosei.load,
    "msp-podcast": msp_podcast.load,
    "ravdess": ravdess.load,
    "synthetic": synthetic.load,
    "synthetic-other": synthetic.load_other,
}


def _accepted(value: Any, _: str) -> Callable[[Path], Corpus] | None:
    return value if callable(value) else None


CORPUS_PLUGINS = Plugins(
    "dataset", "mser.corpora", CORPORA, _accepted, "a function load(root) -> Corpus", "--dataset"
)

__all__ = ["CORPORA", "CORPUS_PLUGINS", "Corpus", "PublishedCounts", "Utterance", "load_corpus"]


def load_corpus(name: str, root: Path) -> Corpus:
    """Read the corpus ``name`` from the folder ``root``.

    ``name`` is in :data:`CORPORA`, the name of a plug-in, or ``file.py:load``.

    Raises:
        UsageError: there is no corpus of that name, or no such folder.
        PipelineError: the folder does not contain that corpus.
    """
    name = CORPUS_PLUGINS.admit(name)
    if not root.is_dir() and not name.startswith("synthetic"):  # they make their folder
        raise UsageError(f"there is no folder '{root}': give the folder of {name} with --root")
    corpus = CORPORA[name](root)
    if not isinstance(corpus, Corpus):
        raise UsageError(f"the dataset {name} returned {corpus!r}: return a Corpus")
    return corpus
