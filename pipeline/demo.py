"""The whole pipeline on a small synthetic corpus, offline."""

from collections.abc import Callable, Sequence
from pathlib import Path

from .compute.device import cores
from .corpora import synthetic
from .encoders.random_encoders import (
    save_speech_encoder,
    save_text_encoder,
    save_vision_encoder,
)
from .errors import UsageError, unknown
from .extract import ExtractSettings, extract
from .modalities import USUAL
from .runs.report import report
from .train import Run, TrainSettings, train_heads

# Small enough for a laptop: the encoders and hbf have width 64.
DEMO_HEADS = {
    "linear": [],
    "hbf": ["learning_rate=0.002", "patience=6", "head.width=64"],
}

# Modality → the folder of its encoder, and what makes it.
ENCODERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "speech": ("random-wav2vec2", save_speech_encoder),
    "text": ("random-bert", lambda folder: save_text_encoder(folder, synthetic.SENTENCE_WORDS)),
    "vision": ("random-vit", save_vision_encoder),
}

_MEANING = """\
What the numbers mean
  Each session was the test part once; its two speakers were not in the training part. The
  validation part, which chose the epoch or the strength of L2, was cut from the training sessions
  by whole dialogues.
  WA is accuracy, UA the mean recall of the classes; chance is the most frequent training class.
  The voices and sentences are synthetic and the encoders are random: these figures show that the
  pipeline works from clip to score, and nothing about emotion in real speech."""


def demo(
    out: Path,
    say: Callable[[str], None],
    utterances: int = 320,
    modalities: Sequence[str] = USUAL,
) -> list[Run]:
    """Make a corpus and encoders below ``out``, extract, and train ``DEMO_HEADS``.

    A second call uses the corpus, the encoders and the features of the first again.

    Args:
        out: the folder for all files.
        say: is called with each part of the text that the demo prints.
        utterances: size of the corpus, a multiple of its number of sessions.
        modalities: those that are extracted and trained on.

    Returns:
        One run per head.

    Raises:
        UsageError: ``out`` is a file, or holds a corpus of another number of utterances;
            ``utterances`` cannot be divided into equal sessions; or there is no such modality.
    """
    for modality in modalities:
        if modality not in ENCODERS:
            raise unknown("modality of the demo", modality, ENCODERS)
    if out.exists() and not out.is_dir():
        raise UsageError(f"'{out}' is a file: give --out the name of a folder")
    per_session, rest = divmod(utterances, synthetic.SESSIONS)
    if rest or per_session < 1:
        raise UsageError(
            f"{utterances} utterances cannot be divided into {synthetic.SESSIONS} equal sessions: "
            f"give a multiple of {synthetic.SESSIONS}"
        )
    corpus, encoders, cache = out / "corpus", out / "encoders", out / "cache"
    say("1. Small encoders with random weights (seed 0), without any training")
    chosen = {name: encoders / ENCODERS[name][0] for name in modalities}
    for name, folder in chosen.items():
        if not (folder / "complete").exists():
            ENCODERS[name][1](folder)
            (folder / "complete").touch()
    made = len(synthetic.load(corpus, utterances_per_session=per_session).utterances)
    if made != utterances:
        raise UsageError(
            f"{corpus} holds {made} utterances, not {utterances}: give another folder with --out"
        )
    both = "both encoders" if len(chosen) == 2 else "the encoders"
    say(f"2. mser extract: the synthetic corpus through {both}, all layers, into the cache")
    summary = extract(
        ExtractSettings(
            dataset="synthetic",
            root=corpus,
            cache=cache,
            encoders={name: str(folder) for name, folder in chosen.items()},
        )
    )
    say(str(summary))
    say("3. mser train-head: each head on the cached features, leaving one session out at a time")
    processes = min(4, cores())
    settings = [
        TrainSettings(
            head=head,
            dataset="synthetic",
            cache=cache,
            encoders=dict.fromkeys(chosen),
            runs=out / "runs",
            workers=processes if processes > 1 else 0,
        ).with_overrides(assignments)
        for head, assignments in DEMO_HEADS.items()
    ]
    runs = train_heads(settings, lambda run: say(str(run)))
    say("4. mser report: both runs on one page")
    page = report([run.path for run in runs], out / "report.html")
    say(_MEANING)
    say(
        "Where the files are\n"
        f"  corpus    {corpus}\n  encoders  {encoders}\n  cache     {cache}\n"
        + "\n".join(f"  run       {run.path}" for run in runs)
        + f"\n  report    {page.path}"
    )
    return runs
