"""Python's search for garbage, which makes the start and the end of a process longer."""

import gc

_NEW_OBJECTS = 100_000  # Python's default is 700


def collect_rarely() -> None:
    """Let this process search for cycles of unused objects rarely.

    The imports of PyTorch and transformers make very many objects, all of which stay. By default
    Python looks through them again and again meanwhile.
    """
    gc.set_threshold(_NEW_OBJECTS, 50, 1000)


def keep_what_is_there() -> None:
    """Let this process search no object that exists now, not even when it ends."""
    gc.freeze()
