"""How far a feature is from that of the utterance alone: padded as usual, and as mser does it.

For each family a **random** model of the base size (12 layers, 768 wide) and a batch of utterances
of different lengths: noise for speech, random words for text. The error of a frame is the length of
the difference, relative to the length of the vector that transformers gives for the utterance
alone; of all frames of all layers, the median and the largest.

* ``no mask``: padded with zeros, as models with ``return_attention_mask=False`` are fed;
* ``mask``: padded, with the attention mask;
* ``ours``: the same batch as mser runs it on a GPU, here on the CPU.

Run it with ``python benchmarks/exactness.py`` or ``python -m mser.benchmarks.exactness``.
"""

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel

from mser.pipeline.extract import load_encoder
from mser.pipeline.extract.encoders.windows import stacked
from mser.tests.small_models import SPEECH, TEXT, WORDS, noise, save_speech, save_text

BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
WAVES = {"conv_dim": (512,) * 7, "num_conv_pos_embedding_groups": 16}
DISTILBERT = {"dim": 768, "n_layers": 12, "n_heads": 12, "hidden_dim": 3072}
SECONDS = (0.6, 1.1, 1.7, 2.4, 3.0, 4.2)
TOKENS = (3, 5, 8, 13, 20, 28)


Hidden = Iterable[np.ndarray[Any, Any]]  # of each utterance (layers, frames, dim)


def errors(batch: Hidden, alone: Hidden) -> np.ndarray[Any, Any]:
    """The relative error of every frame of every layer of every utterance."""
    found = []
    for states, right in zip(batch, alone, strict=True):
        difference = np.linalg.norm(states[:, : right.shape[1]] - right, axis=-1)
        found.append((difference / np.linalg.norm(right, axis=-1)).ravel())
    return np.concatenate(found)


def measure(kind: str, folder: Path, device: str) -> dict[str, tuple[float, float]]:
    if kind in SPEECH:
        save_speech(folder, kind, **BASE, **WAVES)
        inputs: list[Any] = [noise(int(16_000 * s), at) for at, s in enumerate(SECONDS)]
    else:
        save_text(folder, kind, **(DISTILBERT if kind == "distilbert" else BASE))
        rng = np.random.default_rng(0)
        inputs = [" ".join(rng.choice(WORDS, count)) for count in TOKENS]
    encoder: Any = load_encoder(str(folder), device=device)
    encoder.padded = encoder.exact_when_padded
    model = AutoModel.from_pretrained(folder).eval().to(device)

    def run(values: np.ndarray[Any, Any], mask: torch.Tensor | None) -> np.ndarray[Any, Any]:
        with torch.inference_mode():
            given = torch.from_numpy(values).to(device)
            states = model(given, attention_mask=mask, output_hidden_states=True).hidden_states
        return torch.stack(states, dim=1).cpu().numpy()

    windows = [encoder.prepare(one)[0] for one in inputs]
    alone = [run(window.values[None], None)[0] for window in windows]
    values, lengths = stacked(windows, encoder.padding)
    mask = torch.zeros(values.shape, dtype=torch.long, device=device)
    for row, length in zip(mask, lengths, strict=True):
        row[:length] = 1
    found = {
        "no mask": errors(run(values, None), alone),
        "mask": errors(run(values, mask), alone),
        "ours": errors(encoder.encode(inputs), alone),
    }
    return {name: (float(np.median(one)), float(one.max())) for name, one in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    print("| family | no mask | mask | ours |\n|---|---|---|---|")
    for kind in (*SPEECH, *TEXT):
        with tempfile.TemporaryDirectory() as folder:
            cells = [
                f"{median:.1e}, at most {most:.1e}"
                for median, most in measure(kind, Path(folder), device).values()
            ]
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
