"""How fast a corpus is extracted, beside bare forward passes of the same models.

The encoders are wav2vec2-base and BERT-base with **random** weights (12 layers, 768 wide), the
corpus is **synthetic**, with lengths as in MELD, unless another is given. Ours goes from clips to
committed shards, with all 13 layers of both modalities; the others get decoded waves, and keep and
write nothing:

* ``bare, N processes``: one utterance at a time, one thread a process, a process a core;
* ``bare, 1 process``: one utterance at a time, all threads: what most scripts do;
* ``padded 8``: batches of eight in the corpus's order, padded, as s3prl and others do;
* ``ours``: by Dask workers that have loaded the models, as at a running scheduler; ``ours, as
  typed``: with the workers' start and the loading of the models there.

``memory`` compares the peak of a process that extracts a corpus with that for ten times as much.

Run it with ``python benchmarks/extract.py`` or ``python -m mser.benchmarks.extract``.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mser.benchmarks import passes
from mser.benchmarks.corpus import make_corpus
from mser.benchmarks.passes import Job, in_processes
from mser.benchmarks.processes import in_fresh_process, memory_now, quartiles
from mser.pipeline.corpora import synthetic
from mser.pipeline.demo_encoders import save_speech_encoder, save_text_encoder
from mser.pipeline.extract import ExtractSettings, extract

BASE: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
CONVOLUTIONS: dict[str, Any] = {"conv_dim": (512,) * 7, "conv_stride": (5, 2, 2, 2, 2, 2, 2)}
POSITIONS = {"num_conv_pos_embeddings": 128, "num_conv_pos_embedding_groups": 16}


def contenders(job: Job, work: Path, cores: int) -> dict[str, Callable[[], float]]:
    """Name → a function that runs it once and returns the seconds it took."""

    def bare(processes: int, threads: int) -> float:
        each = [(job, threads, part, processes) for part in range(processes)]
        return float(max(one["seconds"] for one in in_processes(passes.one_at_a_time, each)))

    def once(function: Callable[..., dict[str, float]], *arguments: Any) -> float:
        (done,) = in_processes(function, [(job, *arguments)])
        return float(done["seconds"])

    return {
        f"bare, {cores} processes": lambda: bare(cores, 1),
        "ours": lambda: once(passes.ours, work),
        "bare, 1 process": lambda: bare(1, cores),
        "padded 8": lambda: once(passes.padded, cores, 8),
        "ours, as typed": lambda: once(passes.as_typed, work),
    }


def throughput(job: Job, rounds: int) -> dict[str, Any]:
    """Seconds of each contender in each round, and the ratios to ours within a round."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    waves, texts = passes.utterances(job)
    hours = sum(map(len, waves)) / passes.RATE / 3600
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as work:
        for number in range(rounds):
            for name, once in contenders(job, Path(work), int(cores or 1)).items():
                seconds.setdefault(name, []).append(once())
                print(f"round {number + 1}: {name}: {seconds[name][-1]:.1f} s", flush=True)
    return {
        "utterances": [len(waves), len(texts)],
        "hours of audio": hours,
        "seconds": {name: quartiles(values) for name, values in seconds.items()},
        "times real time": {
            name: 3600 * hours / quartiles(values)[0] for name, values in seconds.items()
        },
        "speed of ours, as a multiple": {
            name: quartiles([a / b for a, b in zip(values, seconds["ours"], strict=True)])
            for name, values in seconds.items()
        },
    }


def peak(root: Path, encoder: Path, cache: Path) -> dict[str, float]:
    """The most private memory of a process that extracts a corpus in shards of 2 MiB."""
    extract(
        ExtractSettings(
            "synthetic", root, cache, {"speech": str(encoder)}, workers=0, shard_mib=2.0
        )
    )
    return {"peak MB": memory_now()["peak of both MB"]}


def memory(work: Path) -> dict[str, float]:
    encoder = save_speech_encoder(work / "small")
    result = {}
    for size in (24, 240):
        root = work / f"corpus-{size}"
        synthetic.make(root, utterances_per_session=size)
        found = in_fresh_process(peak, root, encoder, work / f"cache-{size}")
        result[f"{4 * size} utterances"] = found["peak MB"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--manifest", type=Path, help="of a corpus; by default one is made")
    parser.add_argument("--minutes", type=float, default=5, help="of audio in the one that is made")
    parser.add_argument("--rounds", type=int, default=3, help="two or more")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=["throughput", "memory"])
    asked = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if asked.only != "memory":
            speech = save_speech_encoder(work / "speech", **BASE, **CONVOLUTIONS, **POSITIONS)
            text = save_text_encoder(work / "text", synthetic.SENTENCE_WORDS, **BASE)
            manifest = asked.manifest or make_corpus(work / "corpus", asked.minutes)
            job = Job(manifest, speech, text, asked.device)
            result["throughput"] = throughput(job, asked.rounds)
        if asked.only != "throughput":
            result["memory"] = memory(work)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
