"""The options that several commands share, each declared once, and how a result is printed."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..errors import UsageError
from ..modalities import MODALITIES, USUAL
from ..option_texts import default_cache
from .names import HEAD_NAMES

Decorate = Callable[[Callable[..., None]], Callable[..., None]]


def _option(help_text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help_text, **more)


# The cache and its entries
CacheOption = Annotated[
    str,
    _option(
        "Folder or URL (s3://…) of the cache. Default: $MSER_CACHE, else ~/.cache/mser.",
        "--cache",
        default_factory=default_cache,
        show_default=False,
    ),
]
MovedCacheOption = Annotated[
    str | None, _option("Folder or URL of the cache, if it has moved since the training.")
]
_dataset = _option("Name of the dataset in the cache.")
DatasetOption = Annotated[str, _dataset]
OptionalDatasetOption = Annotated[str | None, _dataset]
ModalityOption = Annotated[
    str | None,
    _option("Modality of the entry, such as speech. Required if the dataset has several."),
]
EntryEncoderOption = Annotated[
    str | None,
    _option("Encoder of the entry: name or key. Required if the dataset has several.", "--encoder"),
]
AnyModalityOption = Annotated[
    str | None, _option("Modality of the entries, such as speech. Default: all.", "--modality")
]
AnyEncoderOption = Annotated[
    str | None, _option("Encoder of the entries: name or key. Default: all.", "--encoder")
]
StoreOption = Annotated[
    str, _option("Store format: zarr, hdf5, or one of a plug-in, such as file.py:Class.")
]
CompressionOption = Annotated[
    str, _option("Compression: none, zstd or blosc. Only uncompressed data can be memory-mapped.")
]
LayersOption = Annotated[
    str | None, _option("Layer numbers of the encoder, such as 0,6,12. Default: all layers.")
]

# The corpus
ManifestOption = Annotated[
    Path | None, _option("Your own corpus as a table: a .csv, .tsv, .jsonl or .parquet file.")
]
ReplaceOption = Annotated[
    bool,
    _option(
        "Replace the corpus in the cache although most of its utterances are not in the new one.",
        "--replace",
    ),
]
ClassesOption = Annotated[
    str | None,
    _option("Class set, if the corpus has several, such as 4. Other utterances are left out."),
]
USUAL_MODALITIES = ",".join(USUAL)
ModalitiesOption = Annotated[
    str | None,
    _option(
        f"Modalities, separated by commas, of: {', '.join(MODALITIES)}. Default: "
        f"{USUAL_MODALITIES}.",
        show_default=False,
    ),
]

# Where the work is done
DeviceOption = Annotated[str, _option("Device: auto, cpu or cuda.")]
WorkersOption = Annotated[
    int | None,
    _option(
        "Number of worker processes on this machine; 0 works in this process, without Dask. "
        "Default for extract: one for every four cores, on a GPU one for every two as its memory "
        "allows. Default for training: 0."
    ),
]
_SCHEDULER = Annotated[
    str | None,
    _option("Address of a running Dask scheduler that does the work, such as tcp://node1:8786."),
]
_SLURM = Annotated[Path | None, _option("TOML file that describes SLURM jobs that do the work.")]
_TLS_CA_FILE = Annotated[
    Path | None,
    _option("For --scheduler tls://…: certificate of the authority that the scheduler's is from."),
]
_TLS_CERT = Annotated[Path | None, _option("For --scheduler tls://…: certificate of this command.")]
_TLS_KEY = Annotated[Path | None, _option("Key of --tls-cert. Default: it is in the same file.")]
_WAIT_MINUTES = Annotated[
    float | None,
    _option(
        "Minutes to wait for the first worker, or for another if all are gone. Default: 1 with "
        "--scheduler, 10 with --slurm.",
        show_default=False,
    ),
]
_PLACE: dict[str, Any] = {
    "workers": WorkersOption,
    "scheduler": _SCHEDULER,
    "tls_ca_file": _TLS_CA_FILE,
    "tls_cert": _TLS_CERT,
    "tls_key": _TLS_KEY,
    "slurm": _SLURM,
    "wait_minutes": _WAIT_MINUTES,
}

# A training
HeadOption = Annotated[
    str | None,
    _option(
        f"Head: {', '.join(HEAD_NAMES[:-1])} or {HEAD_NAMES[-1]}; or one of a plug-in, such as "
        "file.py:Class.",
    ),
]
PluginHeadOption = Annotated[
    str | None,
    _option(
        "The head of the run again, as file.py:Class, if its code has moved or changed, or you "
        "have not used it before.",
        "--head",
    ),
]
LayerOption = Annotated[
    str | None,
    _option(
        "Layers that the head reads, by the encoder's own numbers: mix, concat, last, 6, "
        "0,6,12 or speech=0,1,2,text=last. Default: the head's own choice."
    ),
]
ProtocolOption = Annotated[
    str | None,
    _option(
        "Evaluation protocol: official, leave-one-session-out, leave-one-speaker-out, "
        "speaker-folds, group-folds:COLUMN:K, hold-out:COLUMN=VALUE or file:PATH. Default: that of "
        "the corpus."
    ),
]
TrainOnOption = Annotated[
    str | None,
    _option("Datasets to train on, separated by commas, such as iemocap; with --test-on."),
]
TestOnOption = Annotated[
    str | None,
    _option("Other datasets to test on, separated by commas, such as meld,crema-d."),
]
ClassMapOption = Annotated[
    Path | None,
    _option(
        "For --test-on: TOML file of the common classes and their labels, such as angry = "
        '["anger", "ang"]. Default: angry, happy (with excited), sad, neutral.'
    ),
]
BalanceOption = Annotated[
    bool,
    _option(
        "For --test-on: leave dialogues of larger training datasets out, so that all have about "
        "the size of the smallest.",
        "--balance",
    ),
]
ValidationOption = Annotated[
    str | None,
    _option(
        "Cut the validation part from the training part by whole values of: session, speaker or "
        "dialogue. Default: the protocol's own rule."
    ),
]
TargetOption = Annotated[
    str | None,
    _option(
        "What is predicted: emotion, valence, arousal, dominance or another attribute of the "
        "corpus, votes, or labels; several are separated by commas, such as valence,arousal. "
        "Default: emotion."
    ),
]
SeedsOption = Annotated[
    str | None, _option("Random seeds, separated by commas; one training each. Default: 0.")
]
SETTINGS = (
    *("epochs", "patience", "batch_size", "accumulate", "standardise", "speaker_normalisation"),
    *("optimizer", "l2", "learning_rate", "weight_decay", "schedule", "warmup", "clip", "ema"),
    *("class_weights", "logit_adjustment", "loss", "amp", "monitor", "features", "save_every"),
)
SetOption = Annotated[
    list[str] | None,
    _option(
        "Change a setting: key=value, such as epochs=20 or head.width=128; repeatable. Keys: "
        f"{', '.join(SETTINGS)}, and head.OPTION. 'mser list settings' explains them, 'mser list "
        "heads NAME' the options of a head.",
        "--set",
    ),
]

GroupsOption = Annotated[
    str | None,
    _option(
        "What the bootstrap draws: speaker, session, dialogue or utterance. Default: dialogue if "
        "the test utterances have 10 dialogues or more, else utterance."
    ),
]

# A repository of the Hugging Face hub
RepoArgument = Annotated[
    str, typer.Argument(metavar="REPO", help="Repository on the hub: OWNER/NAME.")
]
RevisionOption = Annotated[str | None, _option("Branch, tag or commit. Default: the newest state.")]
PrivateOption = Annotated[
    bool, _option("Who may see a repository that is created.", "--private/--public")
]

# The result
JsonOption = Annotated[bool, _option("Print the result as JSON.", "--json")]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a finished run.")]


def with_encoders(*, cached: bool, default: str | None = None) -> Decorate:
    """Give a command an option ``--MODALITY-encoder`` for each modality.

    The command has a parameter ``encoders`` instead, which gets modality → value.

    Args:
        cached: the command reads features that are in the cache, so that the default is the
            encoder of those features (``None``); else it is the modality's own default.
        default: what the help says of the default, in place of that.
    """
    options = dict(zip(MODALITIES, _encoder_parameters(cached, default), strict=True))
    return lambda command: _expanded(command, "encoders", options)


def with_place(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say where the work is done.

    The command has a parameter ``place`` instead, which gets the name of each option → value.
    """
    options = {
        name: Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _PLACE.items()
    }
    return _expanded(command, "place", options)


def _expanded(
    command: Callable[..., None], parameter: str, options: Mapping[str, Parameter]
) -> Callable[..., None]:
    """Return a command with ``options`` in place of a parameter, which gets key → value."""

    @wraps(command)
    def run(**values: Any) -> None:
        given = {key: values.pop(option.name) for key, option in options.items()}
        command(**values, **{parameter: given})

    hints = get_type_hints(command, include_extras=True)
    parameters: list[Parameter] = []
    for each in signature(command).parameters.values():
        if each.name == parameter:
            parameters += options.values()
        else:
            hint = hints[each.name]
            parameters.append(each.replace(kind=Parameter.KEYWORD_ONLY, annotation=hint))
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in parameters}
    return run


def _encoder_parameters(cached: bool, default: str | None) -> Iterator[Parameter]:
    for modality in MODALITIES.values():
        text = (
            f"Encoder of {modality.name}: a name on the Hugging Face hub, a local folder, or one "
            "of a plug-in, such as file.py:Class."
        )
        if default is not None:
            text += f" Default: {default}."
        elif cached:
            text = (
                f"Encoder of {modality.name}: its name, local folder or cache key. Required if the "
                "cache has features of several, or if the folder has moved."
            )
        yield Parameter(
            f"{modality.name}_encoder",
            Parameter.KEYWORD_ONLY,
            default=None if cached else modality.encoder,
            annotation=Annotated[str | None, _option(text)],
        )


def print_result(result: Any, as_json: bool) -> None:
    """Print a result as text, or as JSON."""
    typer.echo(json.dumps(result.as_json(), indent=2) if as_json else str(result))


def split(names: str) -> list[str]:
    """Return the names in a list that is separated by commas."""
    return [name.strip() for name in names.split(",") if name.strip()]


def numbers(text: str, what: str) -> tuple[int, ...]:
    """Return the numbers in a list that is separated by commas.

    Raises:
        UsageError: an item is not a whole number.
    """
    try:
        return tuple(int(part) for part in split(text))
    except ValueError:
        raise UsageError(
            f"{what} '{text}': give numbers separated by commas, such as 0,1,2"
        ) from None
