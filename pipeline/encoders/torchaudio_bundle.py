"""The speech encoders of torchaudio, such as ``torchaudio:WAV2VEC2_BASE``."""

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
    """Name of the file."""

    def weights_hash(self) -> str:
        """Hash the checkpoint (SHA-256, 16 hexadecimal digits)."""
        with (self.folder / self.checkpoint).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def config_hash(self) -> str:
        """Hash the parameters with which torchaudio builds the model."""
        params = json.dumps(_bundle(self.name)._params, sort_keys=True, default=str)
        return hashlib.sha256(params.encode()).hexdigest()[:16]

    def preprocessing_hash(self) -> str:
        """Return an empty text: a bundle has no such files."""
        return ""


def find_bundle(name: str) -> BundleFiles:
    """Find the checkpoint of ``torchaudio:NAME``; download it if it is not on this machine yet.

    Raises:
        UsageError: torchaudio has no such bundle, the bundle needs another sample rate, or the
            download fails.
    """
    bundle = _bundle(name)
    if bundle.sample_rate != SAMPLE_RATE:
        raise UsageError(f"'{name}' expects audio at {bundle.sample_rate:g} Hz, not {SAMPLE_RATE}")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / Path(bundle._path).name
    if not path.exists():
        url = bundle._path if bundle._path.startswith("https") else _SITE + bundle._path
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), progress=sys.stderr.isatty())
        except OSError as error:
            raise UsageError(
                f"'{name}' is not on this machine and cannot be downloaded ({error}): copy {url} "
                f"to {folder}, or share TORCH_HOME"
            ) from error
    return BundleFiles(name, folder, path.name)


class BundleEncoder(Wav2Vec2Encoder):
    """A Wav2Vec2, HuBERT or WavLM of torchaudio, with the layers of its ``extract_features``.

    Layer 0 is the input of the first transformer layer. In the large models the last layer is not
    normalised by torchaudio; transformers normalises it.

    The preprocessing of torchaudio normalises a whole batch at once; here each wave is normalised
    alone.
    """

    @cached_property
    def bundle(self) -> Any:
        """The bundle of torchaudio."""
        return _bundle(self.name)

    @property
    def exact_when_padded(self) -> bool:
        """Whether padding leaves features unchanged: torchaudio's WavLM has no attention mask."""
        return bool(self.bundle._model_type != "WavLM")

    @property
    def normalised(self) -> bool:
        """Whether a wave is scaled to mean 0 and variance 1, as in the training of the model."""
        return bool(self.bundle._normalize_waveform)

    def shape(self) -> tuple[int, int]:
        """Return the number of hidden layers, with the input of the first, and their width."""
        params = self.bundle._params
        return params["encoder_num_layers"] + 1, params["encoder_embed_dim"]

    def kernels_and_strides(self) -> tuple[Sequence[int], Sequence[int]]:
        """Return the kernels and the strides of the convolutions."""
        _, kernels, strides = zip(*self.bundle._params["extractor_conv_layer_config"], strict=True)
        return kernels, strides

    def preprocess(self, wave: Wave) -> np.ndarray[Any, Any]:
        """Normalise a wave (samples,), if the model was trained on normalised waves."""
        if not self.normalised:
            return wave
        return F.layer_norm(torch.from_numpy(wave), (len(wave),)).numpy()

    def load(self) -> torch.nn.Module:
        """Load the model without the preprocessing of torchaudio, and keep padding out."""
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
    pipelines = _pipelines()
    bundles = {
        key: bundle
        for key, bundle in vars(pipelines).items()
        if isinstance(bundle, pipelines.Wav2Vec2Bundle)
    }
    short = name.removeprefix(PREFIX)
    if short not in bundles:
        raise unknown("bundle of torchaudio", short, bundles)
    return bundles[short]


def _pipelines() -> Any:
    """Return ``torchaudio.pipelines``, which takes a second to import.

    Raises:
        UsageError: torchaudio is not installed, or does not fit the torch that is installed.
    """
    try:
        from torchaudio import pipelines  # noqa: PLC0415
    except (ImportError, OSError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise UsageError(
            f"encoders '{PREFIX}…' need torchaudio, which cannot be imported beside torch "
            f"{torch.__version__} ({why}): install a torchaudio for the same version and CUDA, or "
            "give an encoder from the Hugging Face hub"
        ) from error
    return pipelines
