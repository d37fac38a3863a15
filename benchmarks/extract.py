"""How fast and how exactly a corpus is extracted, compared with other toolkits.

The encoders are wav2vec2-base and BERT-base with **random** weights (12 layers, 768 wide). The
corpus is **synthetic**, with lengths as in MELD. Every method computes all 13 hidden states of
every utterance. Before anything is timed, its features are compared with a direct float32 pass of
transformers over each utterance alone. ``scale.py`` measures memory.

* ``speech``: the speech encoder, by mser, transformers, s3prl and SpeechBrain;
* ``both``: speech and text, by mser and transformers; the other toolkits do not encode texts.

On a CPU two processes per core hold both encoders: 1 to 3 GB each at base size.

Run it with ``python benchmarks/extract.py`` or ``python -m mser.benchmarks.extract``.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mser.benchmarks.extract_methods import (
    COMMAND,
    FLOAT32,
    MSER,
    ONE_PROCESS,
    PER_CORE,
    PER_CORE_MEMORY,
    ExtractMethods,
    started_methods,
)
from mser.benchmarks.forward_passes import Job
from mser.benchmarks.frame_errors import States, median_and_largest
from mser.benchmarks.results import (
    Measurement,
    Plot,
    Rows,
    RunOptions,
    Table,
    main,
    quartiles,
    ratios,
    shuffled_turns,
)
from mser.benchmarks.synthetic_clips import make_corpus
from mser.pipeline.corpora import synthetic
from mser.pipeline.encoders.random_encoders import save_speech_encoder, save_text_encoder

BASE: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
CONVOLUTIONS: dict[str, Any] = {"conv_dim": (512,) * 7, "conv_stride": (5, 2, 2, 2, 2, 2, 2)}
POSITIONS = {"num_conv_pos_embeddings": 128, "num_conv_pos_embedding_groups": 16}
MINUTES, SMALL_MINUTES = 2.0, 1 / 3
MAX_ERROR = 1e-5
SECTIONS = {"speech": ("speech",), "both": ("speech", "text")}
TITLES = {
    "speech": "Extraction of speech: synthetic clips, random weights",
    "both": "Extraction of speech and text: synthetic corpus, random weights",
}

NOTE = (
    "× real time and seconds are medians; *seconds ÷ mser* is a ratio within a round (median and "
    "quartiles). The error of a frame is the norm of its difference from what a direct float32 "
    "pass of transformers computes for the utterance alone, divided by the norm of the latter; "
    "median and largest over all frames of all layers of all utterances. mser's time goes from mp4 "
    "clips to committed shards, with workers that have loaded the encoders; *whole command* is "
    "`mser extract`, with the start of Python and of the workers, and the loading. The other "
    "toolkits have an advantage: their waves are decoded and their encoders are loaded and warm "
    "before, and they keep and write nothing. Every method has all cores: one process with one "
    "thread per core, or, for *one process per core*, processes of one thread with equal shares. "
    "mser stores float16 by default, and its error is that of rounding; *stored as float32* has "
    "no rounding error. In mser's processes glibc keeps the memory that one pass frees for the "
    "next"
)
SPEECH_NOTE = (
    " s3prl is called through `s3prl.upstream.hf_wav2vec2.expert.UpstreamExpert`: `s3prl.hub` and "
    "`s3prl.nn`, which would look it up, cannot be imported with torchaudio 2.11 "
    "(`torchaudio.set_audio_backend` was removed). SpeechBrain is called through "
    "`integrations.huggingface.wav2vec2.Wav2Vec2`, frozen, with batches of `batch_pad_right` and "
    "relative lengths. Both normalise the waves by their own defaults, which is part of what is "
    "measured."
)
BOTH_NOTE = (
    " *Seconds more than bare passes* is the time beyond that of transformers, one at a time, one "
    "process per core (where there is such a row, the one in which glibc keeps freed memory); for "
    "mser this is the time of decoding, hashing, Dask and writing."
)
GLIBC_NOTE = ", as in the row of transformers with that name."


def compare(methods: ExtractMethods, section: str, options: RunOptions) -> Table:
    """Check the features of all methods, then time the methods in turn."""
    modalities = SECTIONS[section]
    chosen = methods.for_modalities(modalities)
    if options.small and section == "speech":
        del chosen[COMMAND]  # takes longer than all other methods together
    errors: dict[str, dict[str, States]] = {}
    for name, method in chosen.items():  # this also warms up every method
        if name == COMMAND:
            continue  # it starts anew for each run: the features of its last run are checked below
        errors[name] = method.errors(modalities)
        worst = max(float(each.max()) for each in errors[name].values())
        options.log(f"{section}: {name}: largest error {worst:.2g}")
        # On a GPU transformers rounds to TF32 by default.
        exact_on_cpu = name in (PER_CORE, PER_CORE_MEMORY, ONE_PROCESS)
        must_be_exact = name == FLOAT32 or (exact_on_cpu and options.device.type == "cpu")
        assert worst < MAX_ERROR or not must_be_exact, name
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for number, name in shuffled_turns([*chosen], options.rounds):
        seconds[name].append(chosen[name].seconds(modalities))
        options.log(f"{section}: round {number + 1}: {name}: {seconds[name][-1]:.1f} s")
    if COMMAND in chosen:
        errors[COMMAND] = chosen[COMMAND].errors(modalities)
    rows: Rows = {
        name: {
            "× real time": methods.corpus_size["seconds"] / quartiles(values)[0],
            "seconds": quartiles(values)[0],
            "seconds ÷ mser": ratios(values, seconds[MSER]),
            **_more_than_bare_passes(section, seconds, values),
            **{
                column: value
                for modality in modalities
                for column, value in median_and_largest(modality, errors[name][modality]).items()
            },
        }
        for name, values in seconds.items()
    }
    glibc = GLIBC_NOTE if PER_CORE_MEMORY in chosen else "."
    note = NOTE + glibc + (SPEECH_NOTE if section == "speech" else BOTH_NOTE)
    return Table(TITLES[section], rows, note, Plot("× real time"))


def _more_than_bare_passes(
    section: str, seconds: Mapping[str, list[float]], values: list[float]
) -> dict[str, list[float]]:
    if section != "both":
        return {}
    bare = seconds[PER_CORE_MEMORY if PER_CORE_MEMORY in seconds else PER_CORE]
    differences = [value - passes for value, passes in zip(values, bare, strict=True)]
    return {"seconds more than bare passes": quartiles(differences)}


def measure(options: RunOptions) -> Measurement:
    tables, missing = [], {}
    settings: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        work = Path(folder)
        sections = [section for section in SECTIONS if options.includes(section)]
        if sections:
            with started_methods(_job(work, options)) as methods:
                tables += [compare(methods, section, options) for section in sections]
                missing = methods.missing
                if options.small and options.includes("speech"):
                    missing[f"{COMMAND}, of speech alone"] = "too slow for the small form"
            settings = {
                "utterances": methods.corpus_size["utterances"],
                "seconds of audio": round(methods.corpus_size["seconds"]),
                "encoders": "4 layers, 64 wide" if options.small else "wav2vec2-base, BERT-base",
                "weights": "random",
                "precision": "float32",
            }
    return Measurement(tables, settings, missing, ("s3prl", "speechbrain", "torchaudio"))


def _job(work: Path, options: RunOptions) -> Job:
    speech, text = ({}, {}) if options.small else ({**BASE, **CONVOLUTIONS, **POSITIONS}, BASE)
    encoders = {
        "speech": save_speech_encoder(work / "speech", **speech),
        "text": save_text_encoder(work / "text", synthetic.SENTENCE_WORDS, **text),
    }
    manifest = make_corpus(work / "corpus", SMALL_MINUTES if options.small else MINUTES)
    return Job(manifest, encoders, options.device.type, work)


if __name__ == "__main__":
    main("extract", "How fast a corpus is extracted.", measure, (3, 2), [*SECTIONS])
