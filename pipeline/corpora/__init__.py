"""Corpora by name: one file per corpus, with a function ``load(root) -> Corpus``."""

from collections.abc import Callable
from pathlib import Path

from ..errors import UsageError, unknown
from . import crema_d, iemocap, meld, synthetic
from .utterance import Corpus, PublishedCounts, Utterance

CORPORA: dict[str, Callable[[Path], Corpus]] = {
    "crema-d": crema_d.load,
    "iemocap": iemocap.load,
    "meld": meld.load,
    "synthetic": synthetic.load,
}

__all__ = ["CORPORA", "Corpus", "PublishedCounts", "Utterance", "load_corpus"]


def load_corpus(name: str, root: Path) -> Corpus:
    """Read the corpus ``name`` from the folder ``root``.

    Raises:
        UsageError: there is no corpus of that name, or no such folder.
        PipelineError: the folder does not contain that corpus.
    """
    if name not in CORPORA:
        raise unknown("dataset", name, CORPORA)
    if not root.is_dir() and name != "synthetic":  # synthetic makes its folder
        raise UsageError(f"there is no folder '{root}': give the folder of {name} with --root")
    return CORPORA[name](root)
