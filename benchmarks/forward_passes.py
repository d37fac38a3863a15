"""Forward passes of a toolkit over the utterances of a corpus, in a process that stays.

The waves are decoded and the encoders are loaded and warm before; nothing is kept or written. So
every toolkit is faster here than in real use.
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
Consume = Callable[[str, Sequence[str], Sequence[torch.Tensor]], None]


@dataclass(frozen=True)
class Job:
    """The corpus and the encoders of the benchmark."""

    manifest: Path
    """The manifest of the utterances."""
    encoders: Mapping[str, Path]
    """Modality → folder of its encoder."""
    device: str
    """``cpu`` or ``cuda``."""
    work: Path
    """A folder for temporary files, such as the reference hidden states."""
    precision: str = "float32"
    """Of mser's forward passes."""

    def reference(self, modality: str, id: str) -> Path:
        """Return the file of what transformers computes for this utterance alone."""
        return self.work / "right" / modality / f"{id}.npy"


@dataclass(frozen=True)
class Batching:
    """How the utterances are put into batches, and which of them this process encodes."""

    size: int = 1
    """Utterances per batch."""
    by_length: bool = False
    """Sort by length, the longest first; else keep the order of the corpus."""
    part: int = 0
    """The part that this process encodes, from 0."""
    parts: int = 1
    """The number of processes that share the utterances."""

    def batches(self, inputs: Mapping[str, Any]) -> list[list[str]]:
        """Return the ids of each batch of this process."""
        ids = list(inputs)
        if self.by_length:
            ids.sort(key=lambda id: len(inputs[id]), reverse=True)
        mine = ids[self.part :: self.parts]
        return [mine[start : start + self.size] for start in range(0, len(mine), self.size)]


def read_inputs(manifest: Path) -> Inputs:
    """Read the texts, and the waves of the clips that can be decoded."""
    inputs: Inputs = {"speech": {}, "text": {}}
    for utterance in read_manifest(manifest, "measured").utterances:
        if utterance.text:
            inputs["text"][utterance.id] = utterance.text
        try:
            assert utterance.audio
            inputs["speech"][utterance.id] = decode(read_clip(utterance.audio))
        except BadClipError:
            continue
    return inputs


class ForwardPasses:
    """The encoders of one toolkit, and the utterances."""

    def __init__(self, job: Job, toolkit: str) -> None:
        self.job = job
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        load = {name: load for name, load in TOOLKITS[toolkit].items() if name in job.encoders}
        self.encode = {name: load[name](job.encoders[name], job.device) for name in load}
        self.inputs = read_inputs(job.manifest)
        for modality, encode in self.encode.items():  # a toolkit that cannot run fails here
            encode(list(self.inputs[modality].values())[:2])

    def run(
        self, modalities: Sequence[str], batching: Batching, consume: Consume | None = None
    ) -> None:
        """Encode all utterances; pass the hidden states to ``consume``, or drop them."""
        for modality in modalities:
            inputs = self.inputs[modality]
            for ids in batching.batches(inputs):
                states = self.encode[modality]([inputs[id] for id in ids])
                if consume:
                    consume(modality, ids, states)
        if self.job.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, modalities: Sequence[str], batching: Batching, threads: int) -> float:
        """Return the time that encoding all utterances takes."""
        torch.set_num_threads(threads)
        started = time.perf_counter()
        self.run(modalities, batching)
        return time.perf_counter() - started

    def errors(
        self, modalities: Sequence[str], batching: Batching, threads: int
    ) -> dict[str, States]:
        """Return, by modality, the error of every frame of every layer of every utterance."""
        torch.set_num_threads(threads)
        errors: dict[str, list[States]] = {modality: [] for modality in modalities}

        def compare(modality: str, ids: Sequence[str], states: Sequence[torch.Tensor]) -> None:
            # Layer by layer: s3prl and transformers return a tuple, SpeechBrain a tensor.
            batch = torch.stack([layer.cpu() for layer in states], dim=1).numpy()
            for id, utterance in zip(ids, batch, strict=True):
                reference = np.load(self.job.reference(modality, id))
                errors[modality].append(frame_errors(utterance, reference))

        self.run(modalities, batching, compare)
        return {modality: np.concatenate(each) for modality, each in errors.items()}

    def save_reference(self) -> dict[str, float]:
        """Encode each utterance alone and write the result; return the size of the corpus."""
        torch.backends.cudnn.allow_tf32 = False  # full float32, on a GPU too

        def save(modality: str, ids: Sequence[str], states: Sequence[torch.Tensor]) -> None:
            (id,) = ids
            path = self.job.reference(modality, id)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, torch.cat(list(states)).cpu().numpy())

        self.run(list(self.job.encoders), Batching(), save)
        torch.backends.cudnn.allow_tf32 = True  # the default
        waves = self.inputs["speech"].values()
        return {"utterances": len(waves), "seconds": sum(map(len, waves)) / RATE}
