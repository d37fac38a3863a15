"""What the card of an encoder says about emotion labels in its training.

The card is the file ``README.md`` beside the weights. Its header lists ``datasets`` and ``tags``.
An encoder that was trained on the labels of a corpus has seen its test part, so results on that
corpus say little.
"""

import re
from pathlib import Path
from typing import Any

CARD = "README.md"
_EMOTION = re.compile(
    r"emotion|iemocap|\bmeld\b|ravdess|msp[-_ ]?(podcast|improv)|crema[-_ ]?d|emo[-_ ]?db|mosei",
    re.IGNORECASE,
)


def emotion_labels(folder: Path) -> list[str]:
    """Return the datasets and tags of a card that tell of emotion labels; none without a card."""
    header = _header(folder / CARD)
    named: list[str] = []
    for key in ("datasets", "tags"):
        values = header.get(key)
        several = values if isinstance(values, list) else [values]
        named += [value for value in several if isinstance(value, str) and _EMOTION.search(value)]
    return list(dict.fromkeys(named))


def _header(path: Path) -> dict[str, Any]:
    from huggingface_hub import metadata_load  # noqa: PLC0415 -- slow to import

    if not path.is_file():
        return {}
    try:
        return metadata_load(path) or {}
    except Exception:
        return {}
