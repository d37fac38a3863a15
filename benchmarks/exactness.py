"""The error that padding adds to features, with the usual padding and with mser's.

For each family: a **random** model of base size (12 layers, 768 wide) and a batch of utterances of
different lengths. The batch is padded without a mask, with the attention mask, and by mser. Each is
compared with what transformers computes for the utterance alone. In the small form the models are
small.

Run it with ``python benchmarks/exactness.py`` or ``python -m mser.benchmarks.exactness``.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel
from transformers.utils import logging

from mser.benchmarks.extract import BASE
from mser.benchmarks.frame_errors import States, frame_errors, median_and_largest
from mser.benchmarks.results import Measurement, Plot, Rows, RunOptions, Table, main
from mser.pipeline.encoders.windows import stacked
from mser.pipeline.extract import load_encoder
from mser.tests.support.small_models import SPEECH, TEXT, WORDS, noise, save_speech, save_text

BASE_CONVOLUTIONS = {"conv_dim": (512,) * 7, "num_conv_pos_embedding_groups": 16}
DISTILBERT = {"dim": 768, "n_layers": 12, "n_heads": 12, "hidden_dim": 3072}
SECONDS = (0.6, 1.1, 1.7, 2.4, 3.0, 4.2)
TOKENS = (3, 5, 8, 13, 20, 28)

NOTE = (
    "Random weights; noise for speech, random words for text, utterances of different lengths in "
    "one batch. The error of a frame is the norm of its difference from what transformers computes "
    "for the utterance alone, divided by the norm of the latter; median and largest over all "
    "frames of all layers, in float32. *No mask* is padding with zeros, as for models with "
    "`return_attention_mask=False`; *mask* is padding with the attention mask; *mser* is the same "
    "batch as mser runs it on a GPU. On a CPU mser does not pad."
)


def save(kind: str, folder: Path, small: bool) -> list[Any]:
    """Save a model of a family; return waves or texts for it."""
    if kind in SPEECH:
        save_speech(folder, kind, **({} if small else {**BASE, **BASE_CONVOLUTIONS}))
        return [noise(int(16_000 * s), seed) for seed, s in enumerate(SECONDS)]
    base: dict[str, Any] = DISTILBERT if kind == "distilbert" else BASE
    save_text(folder, kind, **({} if small else base))
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, count)) for count in TOKENS]


def compare(folder: Path, inputs: list[Any], device: str) -> dict[str, float]:
    """Encode a batch with each kind of padding; return the errors of each."""
    encoder: Any = load_encoder(str(folder), device=device)
    encoder.padded = encoder.exact_when_padded
    model = AutoModel.from_pretrained(folder).eval().to(device)

    def run(values: States, mask: torch.Tensor | None) -> States:
        with torch.inference_mode():
            batch = torch.from_numpy(values).to(device)
            states = model(batch, attention_mask=mask, output_hidden_states=True).hidden_states
        return torch.stack(states, dim=1).cpu().numpy()

    windows = [encoder.prepare(utterance)[0] for utterance in inputs]
    # mser first: on a GPU it turns TF32 off, and the passes that follow need it off too.
    from_mser = list(encoder.encode(inputs))
    alone = [run(window.values[None], None)[0] for window in windows]
    values, lengths = stacked(windows, encoder.padding)
    mask = torch.zeros(values.shape, dtype=torch.long, device=device)
    for row, length in zip(mask, lengths, strict=True):
        row[:length] = 1

    def errors(batch: Iterable[States]) -> States:
        return np.concatenate([frame_errors(*pair) for pair in zip(batch, alone, strict=True)])

    return {
        **median_and_largest("no mask", errors(run(values, None))),
        **median_and_largest("mask", errors(run(values, mask))),
        **median_and_largest("mser", errors(from_mser)),
    }


def measure(options: RunOptions) -> Measurement:
    logging.disable_progress_bar()
    rows: Rows = {}
    for kind in (*SPEECH, *TEXT):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            inputs = save(kind, Path(folder), options.small)
            rows[kind] = {**compare(Path(folder), inputs, options.device.type)}
        options.log(kind)
    plot = Plot("mask: largest error", log=True)
    settings = {
        "models": "2 layers, 32 wide" if options.small else "12 layers, 768 wide",
        "weights": "random",
        "utterances in the batch": len(SECONDS),
    }
    table = Table("Error of padded batches: random weights", rows, NOTE, plot)
    return Measurement([table], settings)


if __name__ == "__main__":
    main("exactness", "The error that padding adds to features.", measure, (1, 1))
