"""Files that a command writes where the user asks for them: complete, or as they were before."""

from pathlib import Path

from ..cache.storage.local import LocalFolder


def write_output(path: Path, text: str) -> None:
    """Write a text as UTF-8, and create the folders above it.

    The text is written beside the file and then renamed, so a full disk leaves the file as it was.

    Raises:
        CacheError: the file cannot be written.
    """
    path = path.resolve()  # a link stays a link
    if path.exists() and not path.is_file():  # a pipe or a device cannot be replaced
        path.write_bytes(text.encode())
        return
    folder = LocalFolder(path.parent)
    folder.make()
    folder.write(path.name, text.encode())
