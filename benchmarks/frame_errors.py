"""How far hidden states are from the right ones, frame by frame."""

from typing import Any

import numpy as np

States = np.ndarray[Any, Any]  # of one utterance: (layers, frames, dim)


def frame_errors(states: States, right: States) -> States:
    """Return the length of the difference of each frame, relative to that of the right vector.

    Frames of padding behind the utterance are left aside.
    """
    given = states[:, : right.shape[1]].astype(np.float32)
    assert given.shape == right.shape, (states.shape, right.shape)
    errors: States = np.linalg.norm(given - right, axis=-1) / np.linalg.norm(right, axis=-1)
    return errors.ravel()


def median_and_largest(of: str, errors: States) -> dict[str, float]:
    """Return two columns of a table."""
    return {
        f"{of}: median error": float(np.median(errors)),
        f"{of}: largest error": float(errors.max()),
    }
