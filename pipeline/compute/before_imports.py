"""The first import of a fork server."""

from ..garbage import collect_rarely

collect_rarely()
