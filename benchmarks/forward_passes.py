"""Forward passes of a toolkit over the utterances of a corpus, in a process that stays.

The waves are decoded and the encoders loaded and warm, nothing is kept and nothing written, so that
a toolkit is faster here than in anybody's use.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from mser.benchmarks.extract_toolkits import RATE, TOOLKITS
from mser.benchmarks.frame_errors import States, frame_errors
from mser.pipeline.corpora.manifest_file import read_manifest
from mser.pipeline.extract.audio import BadClipError, decode, read_clip

Inputs = dict[str, dict[str, Any]]  # modality → id → wave or text
Take = Callable[[str, Sequence[str], Sequence[torch.Tensor]], None]


@dataclass(frozen=True)
class Job:
    """Which manifest's utterances are encoded, by which encoders, where."""

    manifest: Path
    encoders: Mapping[str, Path]  # by modality
    device: str
    work: Path  # a folder for what is written, such as the right hidden states

    def right(self, modality: str, id: str) -> Path:
        """The file of what transformers gives for the utterance alone."""
        return self.work / "right" / modality / f"{id}.npy"


@dataclass(frozen=True)
class Order:
    """In which batches the utterances are encoded, and which share of them by this process."""

    size: int = 1
    by_length: bool = False  # the longest first; else in the corpus's order
    part: int = 0
    parts: int = 1

    def batches(self, inputs: Mapping[str, Any]) -> list[list[str]]:
        ids = list(inputs)
        if self.by_length:
            ids.sort(key=lambda id: len(inputs[id]), reverse=True)
        mine = ids[self.part :: self.parts]
        return [mine[start : start + self.size] for start in range(0, len(mine), self.size)]


def utterances(manifest: Path) -> Inputs:
    """The waves that can be decoded, and the texts."""
    found: Inputs = {"speech": {}, "text": {}}
    for one in read_manifest(manifest, "measured").utterances:
        if one.text:
            found["text"][one.id] = one.text
        try:
            assert one.audio
            found["speech"][one.id] = decode(read_clip(one.audio))
        except BadClipError:
            continue
    return found


class Passes:
    """The encoders of one toolkit, and the utterances."""

    def __init__(self, job: Job, toolkit: str) -> None:
        self.job = job
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        ways = {name: way for name, way in TOOLKITS[toolkit].items() if name in job.encoders}
        self.encode = {name: way(job.encoders[name], job.device) for name, way in ways.items()}
        self.inputs = utterances(job.manifest)
        for modality, encode in self.encode.items():  # what cannot run is to fail here, not later
            encode(list(self.inputs[modality].values())[:2])

    def run(self, modalities: Sequence[str], order: Order, take: Take | None = None) -> None:
        """Encode all; hand the hidden states to ``take``, or drop them."""
        for modality in modalities:
            inputs = self.inputs[modality]
            for ids in order.batches(inputs):
                states = self.encode[modality]([inputs[id] for id in ids])
                if take:
                    take(modality, ids, states)
        if self.job.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, modalities: Sequence[str], order: Order, threads: int) -> float:
        torch.set_num_threads(threads)
        started = time.perf_counter()
        self.run(modalities, order)
        return time.perf_counter() - started

    def errors(self, modalities: Sequence[str], order: Order, threads: int) -> dict[str, States]:
        """The error of every frame of every layer of every utterance, by modality."""
        torch.set_num_threads(threads)
        found: dict[str, list[States]] = {modality: [] for modality in modalities}

        def compare(modality: str, ids: Sequence[str], states: Sequence[torch.Tensor]) -> None:
            # One layer after another: s3prl and transformers give a tuple, SpeechBrain a tensor.
            layers = torch.stack([layer.cpu() for layer in states], dim=1).numpy()
            for id, one in zip(ids, layers, strict=True):
                found[modality].append(frame_errors(one, np.load(self.job.right(modality, id))))

        self.run(modalities, order, compare)
        return {modality: np.concatenate(errors) for modality, errors in found.items()}

    def save_reference(self) -> dict[str, float]:
        """Write what transformers gives for each utterance alone; return how much there is."""
        torch.backends.cudnn.allow_tf32 = False  # float32, on a GPU as well

        def save(modality: str, ids: Sequence[str], states: Sequence[torch.Tensor]) -> None:
            (id,) = ids
            path = self.job.right(modality, id)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, torch.cat(list(states)).cpu().numpy())

        self.run(list(self.job.encoders), Order(), save)
        torch.backends.cudnn.allow_tf32 = True  # as it is by default
        waves = self.inputs["speech"].values()
        return {"utterances": len(waves), "seconds": sum(map(len, waves)) / RATE}
