"""Where the encoder of an entry is loaded from, to compute such features for new clips."""

from pathlib import Path

from ...cache import Entry
from ..encoders.torchaudio_bundle import PREFIX


def source_of(entry: Entry) -> str:
    """Return the folder of the encoder that was used last, if it still exists, or its name."""
    for source in _recorded(entry):
        if "extractor" in entry.spec.identity or Path(source).is_dir():
            return source
    return entry.spec.encoder


def lost_folder(entry: Entry) -> Path | None:
    """Return the folder of the encoder that was used last, if it does not exist here any more.

    A snapshot of the Hugging Face hub is not such a folder: the hub has the encoder by its name.
    """
    for source in _recorded(entry):
        folder = Path(source)
        local = "extractor" not in entry.spec.identity and folder.parent.name != "snapshots"
        return folder if local and not folder.is_dir() else None
    return None


def _recorded(entry: Entry) -> list[str]:
    """Return the sources of the encoder in the records of the entry, the newest first."""
    if entry.spec.encoder.startswith(PREFIX):
        return []
    sources = [run.get("encoder_source") for run in reversed(entry.provenance)]
    return [source for source in sources if isinstance(source, str)]
