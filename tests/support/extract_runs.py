"""Extractions, their features in the cache, and the hidden states by transformers alone."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModel, AutoTokenizer

from mser.cache import FeatureCache
from mser.pipeline.extract import ExtractSettings, extract
from mser.pipeline.extract.audio import decode, read_clip


def run(
    root: Path | None,
    folder: Path | str,
    encoders: dict[str, str],
    dataset: str = "meld",
    **changes,
):
    facts = {"workers": 0, "device": "cpu", **changes}
    return extract(ExtractSettings(dataset, root, folder, encoders, **facts))


def entry(folder: Path, modality: str, dataset: str = "meld"):
    return FeatureCache(folder).open(dataset, modality=modality)


def features(folder: Path, modality: str, dataset: str = "meld"):
    stored = entry(folder, modality, dataset)
    return {id: np.array(stored[id]) for id in stored.ids}


def shards(folder: Path) -> dict[Path, int]:
    """All shards, hidden ones too, with the time at which their data were last written."""
    paths = sorted(path for path in folder.glob("*/*/shards/*") if path.is_dir())
    return {path: max(file.stat().st_mtime_ns for file in path.rglob("*")) for path in paths}


def shards_now(folder: Path) -> list[Path]:
    return list(folder.glob("*/*/shards/*"))


def ids_of(shard: Path) -> list[str]:
    ids: list[str] = json.loads((shard / "zarr.json").read_text())["attributes"]["ids"]
    return ids


def reasons(summary, modality: str) -> dict[str, str]:
    (part,) = (part for part in summary.modalities if part.modality == modality)
    assert len({bad.id for bad in part.quarantined}) == len(part.quarantined)
    return {bad.id: bad.reason for bad in part.quarantined}


@cache
def direct_parts(folder: str, kind):
    return kind.from_pretrained(folder)


def direct(folder: str, raw):
    """All hidden states of one utterance, alone, without padding, by transformers only."""
    if isinstance(raw, str):
        inputs = direct_parts(folder, AutoTokenizer)(raw, return_tensors="pt")
    else:
        extractor = direct_parts(folder, AutoFeatureExtractor)
        inputs = extractor(raw, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        states = (
            direct_parts(folder, AutoModel)
            .eval()(**inputs, output_hidden_states=True)
            .hidden_states
        )
    return torch.stack(states, dim=1)[0].numpy()


def assert_rounded(stored, expected) -> None:
    """``stored`` is ``expected`` to within one unit in the last place of float16.

    Near zero that is less than what float32 can tell, so a millionth of the largest is added.
    """
    assert stored.dtype == np.float16
    assert stored.shape == expected.shape
    ulp = np.spacing(np.abs(expected).astype(np.float16)).astype(np.float32)
    noise = 1e-6 * np.abs(expected).max()
    assert (np.abs(stored.astype(np.float32) - expected) <= ulp + noise).all()


def assert_all_direct(folder: Path, corpus, encoders, dataset: str, left_out=()) -> None:
    for modality, encoder in encoders.items():
        stored = entry(folder, modality, dataset)
        for utterance in corpus.utterances:
            if utterance.id not in stored:
                assert utterance.id in left_out[modality]
                continue
            speech = modality == "speech"
            raw = decode(read_clip(utterance.audio)) if speech else utterance.text
            assert_rounded(stored[utterance.id], direct(encoder, raw))
