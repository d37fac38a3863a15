"""Files that a command writes where the user asks for them: complete, or as they were before."""

from pathlib import Path

from ..cache.storage.local import LocalFolder


def write_output(path: Path, content: str | bytes) -> None:
    """Write bytes, or a text as UTF-8, and create the folders above the file.

    The content is written beside the file and then renamed: a full disk leaves the file as it was.

    Raises:
        CacheError: the file cannot be written.
    """
    written = content.encode() if isinstance(content, str) else content
    path = path.resolve()  # a link stays a link
    if path.exists() and not path.is_file():  # a pipe or a device cannot be replaced
        path.write_bytes(written)
        return
    folder = LocalFolder(path.parent)
    folder.make()
    folder.write(path.name, written)
