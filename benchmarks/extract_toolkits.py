"""How each toolkit makes hidden states of a batch: its own code, by its own defaults.

What a toolkit does to the wave, such as normalising it or not, alone or with its padding, is part
of its way and stays as it is. All return all hidden states, and none keeps gradients.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoFeatureExtractor, AutoModel, AutoTokenizer

RATE = 16_000

Encode = Callable[[Sequence[Any]], Sequence[Tensor]]  # of each layer (batch, frames, dim)


def transformers_speech(folder: Path, device: str) -> Encode:
    """Run the loop that most scripts have; more than one utterance are padded, with their masks."""
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    model = _model(folder, device)

    def encode(waves: Sequence[Any]) -> Sequence[Tensor]:
        pads = {"padding": True, "return_attention_mask": True} if len(waves) > 1 else {}
        inputs = extractor(list(waves), sampling_rate=RATE, return_tensors="pt", **pads)
        with torch.inference_mode():
            found = model(**inputs.to(device), output_hidden_states=True)
        return found.hidden_states  # type: ignore[no-any-return]

    return encode


def transformers_text(folder: Path, device: str) -> Encode:
    """Do the same for texts."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = _model(folder, device)

    def encode(texts: Sequence[str]) -> Sequence[Tensor]:
        inputs = tokenizer(list(texts), return_tensors="pt", padding=len(texts) > 1)
        with torch.inference_mode():
            found = model(**inputs.to(device), output_hidden_states=True)
        return found.hidden_states  # type: ignore[no-any-return]

    return encode


def s3prl_speech(folder: Path, device: str) -> Encode:
    """Call s3prl's upstream of transformers' wav2vec2; ``s3prl.hub`` would only look it up."""
    from s3prl.upstream.hf_wav2vec2.expert import UpstreamExpert  # noqa: PLC0415 -- may be absent

    upstream = UpstreamExpert(str(folder)).eval().to(device)

    def encode(waves: Sequence[Any]) -> Sequence[Tensor]:
        with torch.no_grad():
            found = upstream([torch.from_numpy(wave).to(device) for wave in waves])
        return found["hidden_states"]  # type: ignore[no-any-return]

    return encode


def speechbrain_speech(folder: Path, device: str) -> Encode:
    """Call SpeechBrain's wrapper with its own batches: padded, with relative lengths."""
    from speechbrain.integrations.huggingface.wav2vec2 import (  # noqa: PLC0415 -- may be absent
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
