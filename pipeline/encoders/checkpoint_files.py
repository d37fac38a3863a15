"""The files of a frozen encoder: a local folder, or a snapshot from the Hugging Face hub."""

import hashlib
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from .model_card import CARD

_SETTINGS = ("*.json", "*.txt", "*.model")
# In the order in which transformers tries them.
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
# Folders of many encoders have such a name; the folder above tells them apart.
_SHARED_NAME = re.compile(
    r"(model|encoder|checkpoint|snapshot|weights|pytorch|output|final|best|last|latest|hf)s?"
    r"([-_.]?[0-9]+)?",
    re.IGNORECASE,
)
# These keys name the origin of the files; they do not change the hidden states.
_NOT_IDENTITY = ("_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype")


@dataclass(frozen=True)
class EncoderFiles:
    """The files of an encoder on this machine."""

    name: str
    """Its hub name, or a name of its folder, see :func:`folder_name`."""
    folder: Path
    """The folder that holds the files."""

    @property
    def source(self) -> str:
        """Where the encoder is loaded from; recorded in the cache."""
        return str(self.folder)

    @property
    def shared(self) -> tuple[Path, ...]:
        """The folders that a worker must see at the same path."""
        return (self.folder,)

    def weights_hash(self) -> str:
        """Hash the files that hold the weights (SHA-256, 16 hexadecimal digits)."""
        return _hash_files(_first_weights(self.folder))

    def config_hash(self) -> str:
        """Hash the configuration, without the keys that do not change the hidden states."""
        config = json.loads((self.folder / "config.json").read_bytes())
        kept = {name: value for name, value in config.items() if name not in _NOT_IDENTITY}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]

    def preprocessing_hash(self) -> str:
        """Hash the settings of the tokenizer or the feature extractor."""
        return _hash_files(
            path
            for pattern in _SETTINGS
            for path in sorted(self.folder.glob(pattern))
            if path.name != "config.json" and not path.name.endswith(".index.json")
        )


def find_encoder(name: str) -> EncoderFiles:
    """Find an encoder's files: ``name`` is a local folder, or a name on the Hugging Face hub.

    Missing files are downloaded; weights only in the one format that will be loaded.

    Raises:
        UsageError: the folder holds no encoder, the hub has no encoder of this name, or the hub
            cannot be reached.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        missing = "config.json" if not (folder / "config.json").exists() else "weights"
        if missing == "config.json" or not _has_weights(folder):
            raise UsageError(
                f"'{name}' is not an encoder: the folder has no {missing}; give a folder written "
                "by save_pretrained, or a name on the Hugging Face hub"
            )
        return EncoderFiles(folder_name(folder.resolve()), folder.resolve())
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UsageError(f"'{name}' is not an encoder: the folder does not exist")
    return EncoderFiles(name, _download(name))


def folder_name(folder: Path) -> str:
    """Return a name that a person recognises for the folder of an encoder.

    It is the folder's own name; after that of the folder above, as in ``emotion-hubert/model``, if
    many encoders have such a folder; or the hub name if the folder is in the hub's cache. Entries
    that were made before bear the folder's own name alone.
    """
    above = folder.parent.name
    hub = folder.parent.parent.name
    if above == "snapshots" and hub.startswith("models--"):
        return hub.removeprefix("models--").replace("--", "/", 1)
    if above and _SHARED_NAME.fullmatch(folder.name):
        return f"{above}/{folder.name}"
    return folder.name


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 -- slow to import, often unneeded
    from huggingface_hub.errors import (  # noqa: PLC0415
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )
    from huggingface_hub.utils import logging  # noqa: PLC0415
    from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # would warn of each pattern without a file
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        folder = Path(snapshot_download(name, allow_patterns=[*_SETTINGS, CARD]))
        for pattern in _WEIGHTS:
            folder = Path(snapshot_download(name, allow_patterns=[pattern]))
            if _has_weights(folder):
                return folder
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UsageError(
            f"'{name}' is neither a local folder nor a model on the Hugging Face hub"
        ) from error
    except LocalEntryNotFoundError as error:
        raise _unreachable(name) from error
    if not (folder / "config.json").exists():
        raise _unreachable(name)
    raise UsageError(f"'{name}' on the Hugging Face hub has no weights that PyTorch can load")


def _unreachable(name: str) -> UsageError:
    return UsageError(
        f"'{name}' is not on this machine and the Hugging Face hub cannot be reached: give a "
        f"local folder, or run 'hf download {name}' on a machine with access and share its HF_HOME"
    )


def _has_weights(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in _WEIGHTS)


def _first_weights(folder: Path) -> list[Path]:
    for pattern in _WEIGHTS:
        if files := sorted(folder.glob(pattern)):
            return files
    raise UsageError(f"{folder} has no weights")


def _hash_files(paths: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()};".encode())
    return total.hexdigest()[:16]
