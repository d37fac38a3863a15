"""The table of modalities that mser can extract features of, one line each.

To add a modality: an entry here, its encoders (a class with this ``modality`` in
``encoders/``, named in ``FAMILIES``), and a reader of its content (in ``extract/readers.py``).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Modality:
    """What mser knows of a modality."""

    name: str
    """As in ``--modalities`` and in the names of cache folders."""
    encoder: str
    """The default encoder: a name on the Hugging Face hub."""
    source: str
    """The field of an utterance that the features are computed from, and the option of predict."""
    missing_reason: str
    """The reason in the quarantine of an utterance whose ``source`` is ``None`` or empty."""
    content: str = ""
    """The attribute of an utterance that is read, if it is not ``source`` itself."""
    usual: bool = True
    """Whether commands use the modality if the user names none."""

    @property
    def missing(self) -> str:
        """The sentence beside that reason."""
        return f"the corpus has no {self.source} for this utterance"


MODALITIES: dict[str, Modality] = {
    modality.name: modality
    for modality in (
        Modality("speech", "facebook/wav2vec2-base", "audio", "absent"),
        Modality("text", "bert-base-uncased", "text", "no-text"),
        Modality(
            *("vision", "openai/clip-vit-base-patch32", "video", "absent"),
            content="footage",
            usual=False,
        ),
    )
}

USUAL = tuple(modality.name for modality in MODALITIES.values() if modality.usual)
"""The modalities of a command if the user names none: those of the papers."""


def source_of(utterance: Any, modality: str) -> Any:
    """Return what the features of a modality are computed from, or ``None``.

    It is a path, a text, or the footage that shows the utterance.

    It is ``None`` for a modality that is not in the table, whose features were imported.
    """
    known = MODALITIES.get(modality)
    return getattr(utterance, known.content or known.source) if known else None


def modality_names(modalities: Iterable[str] = MODALITIES, last: str = "or") -> str:
    """Return the names in a sentence, such as ``speech or text``."""
    *first, final = modalities
    return f"{', '.join(first)} {last} {final}" if first else final
