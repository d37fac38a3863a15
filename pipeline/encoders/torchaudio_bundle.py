"""The speech encoders that torchaudio brings: ``torchaudio:WAV2VEC2_BASE`` and its like."""

import hashlib
import json
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import PipelineError, UsageError, unknown
from .checkpoint_files import EncoderFiles
from .padding import lengths_known
from .speech import SAMPLE_RATE, Wave
from .wav2vec2 import Wav2Vec2Encoder

PREFIX = "torchaudio:"
MODEL_TYPE = "torchaudio"

_SITE = "https://download.pytorch.org/torchaudio/models/"
_first_input: ContextVar[list[Tensor] | None] = ContextVar("_first_input", default=None)


@dataclass(frozen=True)
class BundleFiles(EncoderFiles):
    """The one file of a bundle; its configuration is part of torchaudio."""

    checkpoint: str

    def weights_hash(self) -> str:
        """Hash the checkpoint (SHA-256, 16 hexadecimal digits)."""
        with (self.folder / self.checkpoint).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def config_hash(self) -> str:
        """Hash what torchaudio says of the model's build."""
        said = json.dumps(_bundle(self.name)._params, sort_keys=True, default=str)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def preprocessing_hash(self) -> str:
        """Return the empty text: there are no such files."""
        return ""


def find_bundle(name: str) -> BundleFiles:
    """Find the checkpoint of ``torchaudio:NAME``; download it if it is not on this machine yet.

    Raises:
        UsageError: torchaudio has no such bundle, it takes another sample rate, or its site is out
            of reach.
    """
    bundle = _bundle(name)
    if bundle.sample_rate != SAMPLE_RATE:
        raise UsageError(f"'{name}' wants audio at {bundle.sample_rate:g} Hz, not {SAMPLE_RATE}")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / Path(bundle._path).name
    if not path.exists():
        url = bundle._path if bundle._path.startswith("https") else _SITE + bundle._path
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), progress=sys.stderr.isatty())
        except OSError as error:
            raise UsageError(
                f"'{name}' is not on this machine and cannot be downloaded ({error}): bring {url} "
                f"to {folder}, or share TORCH_HOME"
            ) from error
    return BundleFiles(name, folder, path.name)


class BundleEncoder(Wav2Vec2Encoder):
    """A Wav2Vec2, HuBERT or WavLM of torchaudio's, with the layers of its ``extract_features``.

    Layer 0 is the input of the first transformer layer. In the large models the last layer is not
    normalised: torchaudio does not do it, transformers does.

    torchaudio's own preprocessing normalises a whole batch at once; here each wave is normalised by
    itself.
    """

    @cached_property
    def bundle(self) -> Any:
        """What torchaudio knows of the model."""
        return _bundle(self.name)

    @property
    def exact_when_padded(self) -> bool:
        """Whether padding can be kept out: torchaudio's WavLM takes no attention mask."""
        return bool(self.bundle._model_type != "WavLM")

    @property
    def normalised(self) -> bool:
        """Whether a wave is brought to mean 0 and variance 1, as the model was trained."""
        return bool(self.bundle._normalize_waveform)

    def shape(self) -> tuple[int, int]:
        """Return how many hidden layers there are, the first's input counted, and the width."""
        params = self.bundle._params
        return params["encoder_num_layers"] + 1, params["encoder_embed_dim"]

    def kernels_and_strides(self) -> tuple[Sequence[int], Sequence[int]]:
        """Return the kernels and the strides of the convolutions."""
        _, kernels, strides = zip(*self.bundle._params["extractor_conv_layer_config"], strict=True)
        return kernels, strides

    def preprocess(self, one: Wave) -> np.ndarray[Any, Any]:
        """Normalise a wave (samples,) where the model was trained so."""
        if not self.normalised:
            return one
        return F.layer_norm(torch.from_numpy(one), (len(one),)).numpy()

    def load(self) -> torch.nn.Module:
        """Load the model without what torchaudio does before it, and keep padding out."""
        try:
            model = self.bundle.get_model()
        except (RuntimeError, OSError) as error:
            path = self.settings.files.folder
            raise PipelineError(f"{path}: '{self.name}' cannot be loaded: {error}") from error
        model = getattr(model, "model", model)
        self.keep_padding_out(model)
        model.encoder.transformer.layers[0].register_forward_pre_hook(_keep_input)
        return model  # type: ignore[no-any-return]

    def hidden_states(
        self, model: torch.nn.Module, values: Tensor, lengths: Sequence[int]
    ) -> Sequence[Tensor]:
        """Run the model on waves (batch, samples)."""
        ends = None
        if min(lengths) < values.shape[-1]:
            ends = torch.tensor(lengths, device=values.device)
        first: list[Tensor] = []
        token = _first_input.set(first)
        try:
            with lengths_known(lengths, values.shape[-1]):
                layers, _ = model.extract_features(values, ends)  # type: ignore[operator]
        finally:
            _first_input.reset(token)
        return [*first, *layers]


def _keep_input(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
    first = _first_input.get()
    if first is not None:
        first.append(inputs[0])


def _bundle(name: str) -> Any:
    from torchaudio import pipelines  # noqa: PLC0415 -- seconds to import

    known = {
        one: bundle
        for one, bundle in vars(pipelines).items()
        if isinstance(bundle, pipelines.Wav2Vec2Bundle)
    }
    short = name.removeprefix(PREFIX)
    if short not in known:
        raise unknown("bundle of torchaudio", short, known)
    return known[short]
