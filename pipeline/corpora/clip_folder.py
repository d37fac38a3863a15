"""The audio and video files below a folder, as a manifest without labels."""

import csv
import os
from pathlib import Path

from ..errors import UsageError

SUFFIXES = frozenset(
    [
        *(".aac", ".aif", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".mka", ".mp2", ".mp3"),
        *(".oga", ".ogg", ".opus", ".sph", ".spx", ".voc", ".w64", ".wav", ".weba", ".wma", ".wv"),
        *(".3gp", ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv"),
    ]
)
"""The suffixes of clips, in small letters; other files are left out."""


def write_clip_manifest(folder: Path, manifest: Path) -> list[Path]:
    """Write a manifest of all clips below a folder; the id of a clip is its path below the folder.

    Hidden files and folders are left out, and so are links to folders.

    Args:
        folder: the folder.
        manifest: the ``.csv`` file to write.

    Returns:
        The files that are left out because their suffix is not that of a clip, or because their
        name is not valid UTF-8.

    Raises:
        UsageError: there is no clip below the folder.
    """
    clips: list[Path] = []
    others: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(place, name)
            is_clip = path.suffix.lower() in SUFFIXES and _is_text(str(path))
            (clips if is_clip else others).append(path)
    if not clips:
        raise UsageError(f"'{folder}' holds no audio or video file: give the folder of the clips")
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "audio"])
        writer.writerows(
            [path.relative_to(folder).as_posix(), str(path.absolute())] for path in clips
        )
    return others


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
