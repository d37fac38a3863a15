"""A standard error that is a terminal, or a file, and keeps what is written."""

import io


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True
