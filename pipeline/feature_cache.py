"""The cache as a user of mser sees it: with encoders by folder, and with plug-ins."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..cache import Entry, NotFoundError
from ..cache import FeatureCache as ArrayCache
from .option_texts import with_options
from .plugins import is_spec
from .store_formats import FORMAT_PLUGINS

_TORCHAUDIO = "torchaudio:"  # its bundles look like a class in a module

__all__ = ["FORMAT_PLUGINS", "FeatureCache"]


class FeatureCache(ArrayCache):
    """Cached hidden states below one folder, for any number of datasets and encoders.

    See :class:`mser.cache.FeatureCache` for the arguments. Store formats of plug-ins are found if
    they are installed, or if the user has named their file before.
    """

    def open(
        self,
        dataset: str,
        encoder: str | Path | None = None,
        *,
        modality: str | None = None,
        expect: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Open the one entry that matches; see :meth:`mser.cache.FeatureCache.open`.

        ``encoder`` is the name, the folder or the key of the encoder, or ``file.py:Class``. The
        weights of a folder, or the code of a file, must be those of the entry.

        Raises:
            UsageError: the folder holds no encoder, or the code cannot be loaded.
            CacheError: as the method of the base class.
        """
        if encoder is None:
            return super().open(dataset, modality=modality, expect=expect)
        name = str(encoder)
        if Path(name).expanduser().is_dir():
            return self._open_folder(dataset, name, modality, expect or {})
        if is_spec(with_options(name)[0]) and not name.startswith(_TORCHAUDIO):
            from .encoders import load_encoder  # noqa: PLC0415 -- imports torch

            computed = load_encoder(name, device="cpu", modality=modality)
            expected = {"code": computed.identity["code"], **(expect or {})}
            return super().open(dataset, computed.name, modality=computed.modality, expect=expected)
        return super().open(dataset, name, modality=modality, expect=expect)

    def _open_folder(
        self, dataset: str, folder: str, modality: str | None, expect: Mapping[str, Any]
    ) -> Entry:
        from .encoders.checkpoint_files import find_encoder  # noqa: PLC0415 -- imports torch

        # Compare the weights of the folder: another encoder may have the same name.
        files = find_encoder(folder)
        expected = {"weights": files.weights_hash(), **expect}
        for name in (files.name, files.folder.name):  # older entries bear the name of the folder
            with suppress(NotFoundError):
                return super().open(dataset, name, modality=modality, expect=expected)
        return super().open(dataset, files.name, modality=modality, expect=expected)
