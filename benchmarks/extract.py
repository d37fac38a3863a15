"""How fast a corpus is extracted, and how right, beside the peers' own ways.

The encoders are wav2vec2-base and BERT-base with **random** weights (12 layers, 768 wide), the
corpus is **synthetic**, with lengths as in MELD. All 13 layers of every utterance are made. What a
way gives is compared with a direct float32 pass of transformers over each utterance alone before
anything is timed: a fast wrong feature is no feature. Memory is a matter of ``scale.py``.

* ``speech``: the speech encoder, by mser, transformers, s3prl and SpeechBrain;
* ``both``: speech and text, by mser and transformers, as the toolkits have no loop for texts.

On a CPU there are two processes a core, each with both encoders: 1 to 3 GB each at the base size.

Run it with ``python benchmarks/extract.py`` or ``python -m mser.benchmarks.extract``.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mser.benchmarks.extract_methods import ALONE, FLOAT32, KEPT, ONE, OURS, TYPED, Ways, ways
from mser.benchmarks.forward_passes import Job
from mser.benchmarks.frame_errors import States, median_and_largest
from mser.benchmarks.results import Asked, Found, Plot, Rows, Table, main, quartiles, ratios, turns
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
EXACT = 1e-5
SECTIONS = {"speech": ("speech",), "both": ("speech", "text")}
TITLES = {
    "speech": "Extraction of speech: synthetic clips, random weights",
    "both": "Extraction of speech and text: synthetic corpus, random weights",
}

NOTE = (
    "× real time and seconds are medians; the ratio of the seconds to mser's is taken within a "
    "round (median and quartiles). The error of a frame is the length of its difference from what "
    "a direct float32 pass of transformers gives for the utterance alone, relative to the length "
    "of that; median and largest of all frames of all layers of all utterances. mser goes from "
    "mp4 clips to committed shards, at workers that wait with the encoders loaded; *as typed* is "
    "the plain command, with the start of Python and of the workers, and the loading. It is in "
    "the others' favour that their waves are decoded, their encoders loaded and warm, and that "
    "they keep and write nothing. Every way has all cores: one process with a thread a core, "
    "or, for *a process a core*, processes of one thread with equal shares. mser stores "
    "float16 by default, whose rounding is its error; *float32 on the disk* has none. It lets "
    "glibc keep the memory that one pass frees for the next"
)
PEERS = (
    " s3prl is called at `s3prl.upstream.hf_wav2vec2.expert.UpstreamExpert`: `s3prl.hub` and "
    "`s3prl.nn`, which would look it up, cannot be imported beside torchaudio 2.11 "
    "(`torchaudio.set_audio_backend` is gone). SpeechBrain is called at "
    "`integrations.huggingface.wav2vec2.Wav2Vec2`, frozen, with batches of `batch_pad_right` and "
    "relative lengths. Both normalise the waves by their own defaults, which is part of what is "
    "measured."
)
SHARE = (
    " *Seconds beyond the bare passes* are those more than one at a time takes with a process a "
    "core, where there is such a row with glibc keeping memory; of mser that is its own share: "
    "decoding, hashing, Dask, and writing."
)
KEEPING = ", as does the row of transformers that says so."


def compare(found: Ways, section: str, asked: Asked) -> Table:
    """Check what all ways make, then time them in turn, in another order each round."""
    modalities = SECTIONS[section]
    chosen = found.of(modalities)
    if asked.small and section == "speech":
        del chosen[TYPED]  # takes longer than all others together
    errors: dict[str, dict[str, States]] = {}
    for name, way in chosen.items():  # which also warms all up
        if name == TYPED:
            continue  # starts anew each time: what it wrote is looked at in the end
        errors[name] = way.errors(modalities)
        worst = max(float(one.max()) for one in errors[name].values())
        asked.say(f"{section}: {name}: largest error {worst:.2g}")
        # On a GPU transformers' passes may be rounded to TF32, as they are by default.
        must = name == FLOAT32 or (name in (ALONE, KEPT, ONE) and asked.device.type == "cpu")
        assert worst < EXACT or not must, name
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for number, name in turns([*chosen], asked.rounds):
        seconds[name].append(chosen[name].seconds(modalities))
        asked.say(f"{section}: round {number + 1}: {name}: {seconds[name][-1]:.1f} s")
    if TYPED in chosen:
        errors[TYPED] = chosen[TYPED].errors(modalities)
    rows: Rows = {
        name: {
            "× real time": found.utterances["seconds"] / quartiles(values)[0],
            "seconds": quartiles(values)[0],
            "seconds, as a multiple of mser's": ratios(values, seconds[OURS]),
            **_beyond(section, seconds, values),
            **{
                column: value
                for modality in modalities
                for column, value in median_and_largest(modality, errors[name][modality]).items()
            },
        }
        for name, values in seconds.items()
    }
    kept = KEEPING if KEPT in chosen else "."
    note = NOTE + kept + (PEERS if section == "speech" else SHARE)
    return Table(TITLES[section], rows, note, Plot("× real time"))


def _beyond(
    section: str, seconds: Mapping[str, list[float]], values: list[float]
) -> dict[str, list[float]]:
    if section != "both":
        return {}
    pairs = zip(values, seconds[KEPT if KEPT in seconds else ALONE], strict=True)
    return {"seconds beyond the bare passes": quartiles([one - bare for one, bare in pairs])}


def measure(asked: Asked) -> Found:
    tables, missing = [], {}
    settings: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        work = Path(folder)
        sections = [section for section in SECTIONS if asked.wants(section)]
        if sections:
            with ways(_job(work, asked)) as found:
                tables += [compare(found, section, asked) for section in sections]
                missing = found.missing
                if asked.small and asked.wants("speech"):
                    missing[f"{TYPED}, of speech alone"] = "left out of the small form for its time"
            settings = {
                "utterances": found.utterances["utterances"],
                "seconds of audio": round(found.utterances["seconds"]),
                "encoders": "4 layers, 64 wide" if asked.small else "wav2vec2-base, BERT-base",
                "weights": "random",
                "precision": "float32",
            }
    return Found(tables, settings, missing, ("s3prl", "speechbrain", "torchaudio"))


def _job(work: Path, asked: Asked) -> Job:
    speech, text = ({}, {}) if asked.small else ({**BASE, **CONVOLUTIONS, **POSITIONS}, BASE)
    encoders = {
        "speech": save_speech_encoder(work / "speech", **speech),
        "text": save_text_encoder(work / "text", synthetic.SENTENCE_WORDS, **text),
    }
    manifest = make_corpus(work / "corpus", SMALL_MINUTES if asked.small else MINUTES)
    return Job(manifest, encoders, asked.device.type, work)


if __name__ == "__main__":
    main("extract", "How fast a corpus is extracted.", measure, (3, 2), [*SECTIONS])
