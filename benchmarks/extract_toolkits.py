"""Functions that compute hidden states of a batch with each toolkit, with its own defaults.

How a toolkit prepares the wave, for example whether it normalises it with or without the padding,
is part of what is measured and is not changed. All return all hidden states and keep no gradients.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoFeatureExtractor, AutoModel, AutoTokenizer

RATE = 16_000  # samples per second

Encode = Callable[[Sequence[Any]], Sequence[Tensor]]  # one (batch, frames, dim) per layer


def transformers_speech(folder: Path, device: str) -> Encode:
    """Encode as most scripts do; two or more utterances are padded, with the attention mask."""
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    model = _model(folder, device)

    def encode(waves: Sequence[Any]) -> Sequence[Tensor]:
        padding = {"padding": True, "return_attention_mask": True} if len(waves) > 1 else {}
        inputs = extractor(list(waves), sampling_rate=RATE, return_tensors="pt", **padding)
        with torch.inference_mode():
            output = model(**inputs.to(device), output_hidden_states=True)
        return output.hidden_states  # type: ignore[no-any-return]

    return encode


def transformers_text(folder: Path, device: str) -> Encode:
    """Encode texts as most scripts do; two or more texts are padded, with the attention mask."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = _model(folder, device)

    def encode(texts: Sequence[str]) -> Sequence[Tensor]:
        inputs = tokenizer(list(texts), return_tensors="pt", padding=len(texts) > 1)
        with torch.inference_mode():
            output = model(**inputs.to(device), output_hidden_states=True)
        return output.hidden_states  # type: ignore[no-any-return]

    return encode


def s3prl_speech(folder: Path, device: str) -> Encode:
    """Encode with s3prl's wrapper of wav2vec2, which ``s3prl.hub`` would only look up."""
    from s3prl.upstream.hf_wav2vec2.expert import UpstreamExpert  # noqa: PLC0415 -- optional

    upstream = UpstreamExpert(str(folder)).eval().to(device)

    def encode(waves: Sequence[Any]) -> Sequence[Tensor]:
        with torch.no_grad():
            output = upstream([torch.from_numpy(wave).to(device) for wave in waves])
        return output["hidden_states"]  # type: ignore[no-any-return]

    return encode


def speechbrain_speech(folder: Path, device: str) -> Encode:
    """Encode with SpeechBrain's wrapper and its own batches: padded, with relative lengths."""
    from speechbrain.integrations.huggingface.wav2vec2 import (  # noqa: PLC0415 -- optional
        Wav2Vec2,
    )
    from speechbrain.utils.data_utils import batch_pad_right  # noqa: PLC0415

    wrapper = Wav2Vec2(
        str(folder), str(folder / "speechbrain"), freeze=True, output_all_hiddens=True
    ).to(device)

    def encode(waves: Sequence[Any]) -> Sequence[Tensor]:
        padded, lengths = batch_pad_right([torch.from_numpy(wave) for wave in waves])
        return wrapper(padded.to(device), lengths.to(device))  # type: ignore[no-any-return]

    return encode


TOOLKITS: Mapping[str, Mapping[str, Callable[[Path, str], Encode]]] = {
    "transformers": {"speech": transformers_speech, "text": transformers_text},
    "s3prl": {"speech": s3prl_speech},
    "SpeechBrain": {"speech": speechbrain_speech},
}


def _model(folder: Path, device: str) -> Any:
    return AutoModel.from_pretrained(folder, dtype=torch.float32).eval().to(device)
