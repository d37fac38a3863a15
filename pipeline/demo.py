"""The whole pipeline on a small synthetic corpus, offline."""

from collections.abc import Callable
from pathlib import Path

from .compute.device import cores
from .corpora import synthetic
from .encoders.random_encoders import save_speech_encoder, save_text_encoder
from .errors import UsageError
from .extract import ExtractSettings, extract
from .runs.report import report
from .train import Run, TrainSettings, train_heads

# Small enough for a laptop: the encoders and hbf have width 64.
DEMO_HEADS = {
    "linear": [],
    "hbf": ["learning_rate=0.002", "patience=6", "head.width=64"],
}

_MEANING = """\
What the numbers mean
  Each session was the test part once; its two speakers were not in the training part. The
  validation part, which chose the epoch or the strength of L2, was cut from the training sessions
  by whole dialogues.
  WA is accuracy, UA the mean recall of the classes; chance is the most frequent training class.
  The voices and sentences are synthetic and the encoders are random: these figures show that the
  pipeline works from clip to score, and nothing about emotion in real speech."""


def demo(out: Path, say: Callable[[str], None], utterances: int = 320) -> list[Run]:
    """Make a corpus and encoders below ``out``, extract, and train ``DEMO_HEADS``.

    A second call uses the corpus, the encoders and the features of the first again.

    Args:
        out: the folder for all files.
        say: is called with each part of the text that the demo prints.
        utterances: size of the corpus, a multiple of its number of sessions.

    Returns:
        One run per head.

    Raises:
        UsageError: the corpus below ``out`` has another number of utterances, or ``utterances``
            cannot be divided into equal sessions.
    """
    per_session, rest = divmod(utterances, synthetic.SESSIONS)
    if rest or per_session < 1:
        raise UsageError(
            f"{utterances} utterances cannot be divided into {synthetic.SESSIONS} equal sessions: "
            f"give a multiple of {synthetic.SESSIONS}"
        )
    corpus, encoders, cache = out / "corpus", out / "encoders", out / "cache"
    say("1. Small encoders with random weights (seed 0), without any training")
    speech, text = encoders / "random-wav2vec2", encoders / "random-bert"
    if not text.exists():  # made last
        save_speech_encoder(speech)
        save_text_encoder(text, synthetic.SENTENCE_WORDS)
    made = len(synthetic.load(corpus, utterances_per_session=per_session).utterances)
    if made != utterances:
        raise UsageError(
            f"{corpus} holds {made} utterances, not {utterances}: give another folder with --out"
        )
    say("2. mser extract: the synthetic corpus through both encoders, all layers, into the cache")
    summary = extract(
        ExtractSettings(
            dataset="synthetic",
            root=corpus,
            cache=cache,
            encoders={"speech": str(speech), "text": str(text)},
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
            encoders={"speech": None, "text": None},
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
