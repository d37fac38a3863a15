"""``egemaps``: the extended Geneva minimalistic parameter set, by openSMILE."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np

from ..errors import UsageError
from .feature_extractor import FeatureExtractor
from .speech import SAMPLE_RATE, Wave

_DIMS = {"functionals": 88, "lld": 25}


class Egemaps(FeatureExtractor):
    """eGeMAPSv02 (Eyben et al., IEEE Transactions on Affective Computing 2016), by openSMILE.

    openSMILE has its own licence, which excludes commercial use; ``mser[opensmile]`` installs it.

    Args:
        level: ``functionals``, one vector of 88 values for an utterance; or ``lld``, 25 low-level
            descriptors every 10 ms, smoothed over three frames.

    Raises:
        UsageError: the package opensmile is not installed.
    """

    def __init__(self, *, level: Literal["functionals", "lld"] = "functionals") -> None:
        try:
            self.version = version("opensmile")
        except PackageNotFoundError:
            raise UsageError(
                "the encoder egemaps needs the package opensmile: pip install 'mser[opensmile]'"
            ) from None
        self.dim = _DIMS[level]
        self.frame_seconds = 0.01 if level == "lld" else float("inf")
        self.level = level

    def facts(self) -> Mapping[str, Any]:
        """Return the feature set and the version of openSMILE."""
        return {"feature_set": "eGeMAPSv02", "opensmile": self.version}

    def extract(self, utterance: Wave) -> np.ndarray[Any, Any]:
        """Return (1, 88) functionals, or (frames, 25) descriptors, of a wave (samples,)."""
        import opensmile  # noqa: PLC0415 -- optional, and imports pandas

        level = {
            "functionals": opensmile.FeatureLevel.Functionals,
            "lld": opensmile.FeatureLevel.LowLevelDescriptors,
        }[self.level]
        smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, level)
        values: np.ndarray[Any, Any] = smile.process_signal(utterance, SAMPLE_RATE).to_numpy()
        return values
