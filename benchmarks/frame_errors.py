"""The error of hidden states against a reference, frame by frame."""

from typing import Any

import numpy as np

States = np.ndarray[Any, Any]  # hidden states of one utterance: (layers, frames, dim)


def frame_errors(states: States, reference: States) -> States:
    """Return the relative error of each frame of each layer: (layers × frames,).

    The error is the norm of the difference, divided by the norm of the reference vector. Frames
    of padding behind the utterance are ignored.
    """
    unpadded = states[:, : reference.shape[1]].astype(np.float32)
    assert unpadded.shape == reference.shape, (states.shape, reference.shape)
    norms = np.linalg.norm(reference, axis=-1)
    errors: States = np.linalg.norm(unpadded - reference, axis=-1) / norms
    return errors.ravel()


def median_and_largest(label: str, errors: States) -> dict[str, float]:
    """Return two columns of a table, whose names begin with ``label``."""
    return {
        f"{label}: median error": float(np.median(errors)),
        f"{label}: largest error": float(errors.max()),
    }
