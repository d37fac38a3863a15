"""Settings of an extraction."""

from dataclasses import field
from functools import cached_property
from typing import Annotated, Any

import torch

from ...cache import COMPRESSIONS, DTYPES
from ..compute import Backend
from ..compute.tls import tls_files
from ..encoders.encoder import PRECISIONS
from ..encoders.frame_choice import FPS, NO_FACE, WHOLE_FRAME, FrameChoice
from ..encoders.frame_means import FrameMeans
from ..errors import UsageError
from ..modalities import MODALITIES, USUAL, modality_names
from ..option_texts import default_cache
from ..store_formats import FORMAT_PLUGINS
from ..validation import AnyPath, CachePlace, Count, Positive, one_of, plugin_of, settings
from .engine import WORKER_SIZING
from .faces import face_choice

ModalityName = Annotated[str, one_of("modality", MODALITIES)]


@settings
class ExtractSettings:
    """Which corpus to extract, with which encoders, into which cache, and where.

    ``layers``, ``stored_frames``, ``dtype``, ``precision``, ``max_seconds``, ``fps``,
    ``video_frames``, ``faces`` and ``no_face`` change the numbers, so they are part of an entry's
    identity. ``device``, ``workers``, ``store``, ``compression`` and ``shard_mib`` do not.
    """

    dataset: str
    """A known corpus, such as ``meld``; one of a plug-in, such as ``file.py:load``; ``manifest``
    for a corpus described by a table."""
    root: AnyPath | None = None
    """Folder of the corpus; ``None`` for ``manifest``."""
    cache: CachePlace = field(default_factory=default_cache)
    """Folder of the cache, the URL of an object store, or a ``FeatureCache``; default
    ``$MSER_CACHE``, else ``~/.cache/mser``."""
    encoders: dict[ModalityName, str] = field(
        default_factory=lambda: {name: MODALITIES[name].encoder for name in USUAL}
    )
    """Modality → its encoder: a hub name, a folder, or what else ``load_encoder`` takes;
    default the papers' pair, facebook/wav2vec2-base and bert-base-uncased."""
    manifest: AnyPath | None = None
    """The table that describes the dataset ``manifest``."""
    name: str | None = None
    """Name of the dataset ``manifest`` in the cache."""
    classes: str | None = None
    """Extract only utterances of this class set, such as IEMOCAP's ``4``; default: all."""
    layers: str = "all"
    """Encoder layers to keep: ``all``, ``last``, or numbers such as ``0,6,12``."""
    stored_frames: str = "all"
    """Frames to store: ``all`` (default), ``mean`` (one vector for each utterance), or a number N
    (means of N consecutive frames)."""
    dtype: Annotated[str, one_of("dtype", DTYPES)] = "float16"
    """Of the stored features: ``float16`` (default), ``float32``, ``bfloat16`` or ``int8``."""
    precision: Annotated[str, one_of("precision", PRECISIONS)] = "float32"
    """Of the forward pass: ``float32`` (default), ``bfloat16``, ``float16``, or ``tf32``, which
    needs a GPU."""
    max_seconds: Positive = 30.0
    """Longer audio is encoded in overlapping windows of this length, in seconds; default 30."""
    fps: Positive = FPS
    """Frames a second that are taken of a video; default 5."""
    video_frames: Count | None = None
    """Take so many frames of each video, evenly spaced, instead of ``fps``."""
    faces: str = WHOLE_FRAME
    """Part of a frame that is encoded: ``none`` (default: the whole frame), a folder of crops,
    ``yunet`` (the largest face), or the file of YuNet's weights."""
    no_face: Annotated[str, one_of("no_face", NO_FACE)] = "frame"
    """Without a face: ``frame`` (default: whole frames) or ``quarantine``."""
    device: str = "auto"
    """``auto`` (default: a GPU if this machine has one), ``cpu`` or ``cuda``."""
    workers: int | None = None
    """Worker processes on this machine; 0: this process, without Dask; default: by the machine."""
    scheduler: str | None = None
    """Address of a running Dask scheduler, instead of ``workers``."""
    tls_ca_file: AnyPath | None = None
    """For ``scheduler``, if it is at ``tls://…``: the certificate of the authority, in PEM."""
    tls_cert: AnyPath | None = None
    """The certificate of this process; default: that of Dask's configuration."""
    tls_key: AnyPath | None = None
    """The key of ``tls_cert``; default: it is in the same file."""
    slurm: AnyPath | None = None
    """TOML file that describes SLURM jobs, instead of ``workers``."""
    wait_minutes: float | None = None
    """How long to wait without any worker; default: 1 for ``scheduler``, 10 for ``slurm``."""
    limit: Count | None = None
    """Extract only the first ``limit`` utterances; default: all."""
    strict: bool = False
    """End the run at the first utterance that fails; default: put it into quarantine."""
    replace: bool = False
    """Replace a corpus in the cache although most of its utterances are not in the new one;
    default: refuse."""
    dry_run: bool = False
    """Only report what an extraction would do; default: extract."""
    shard_mib: Positive | None = None
    """Size of the largest shard in MiB, as ``float16`` or ``float32`` in memory, which a killed
    worker loses at most; default: 64, on a GPU 256."""
    store: Annotated[str, plugin_of(FORMAT_PLUGINS)] = "zarr"
    """Format of the shards: ``zarr`` (default), ``hdf5``, or that of a plug-in."""
    compression: Annotated[str, one_of("compression", COMPRESSIONS)] = "none"
    """Of the shards: ``none`` (default), ``zstd`` or ``blosc``."""

    def __post_init__(self) -> None:
        """Validate the settings that depend on each other; the types validate the rest.

        Raises:
            UsageError: a value is invalid.
        """
        if not self.encoders:
            raise UsageError(f"no modality is given: give {modality_names()} in --modalities")
        of_manifest = self.dataset == "manifest"
        if of_manifest and not (self.manifest and self.name):
            lacks = "--manifest FILE" if self.name else "--name NAME"
            raise UsageError(f"dataset 'manifest' needs {lacks}")
        if of_manifest and self.root is not None:
            raise UsageError("dataset 'manifest' takes no --root: its paths start at its folder")
        if not of_manifest and (self.root is None or self.manifest or self.name):
            raise UsageError(
                f"dataset '{self.dataset}' takes --root, and neither --manifest nor --name"
            )
        _ = self.backend, self.frames, self.means

    @cached_property
    def frames(self) -> FrameChoice:
        """Which frames of a video are encoded."""
        return FrameChoice(self.fps, self.video_frames, face_choice(self.faces, self.no_face))

    @cached_property
    def means(self) -> FrameMeans:
        """Which frames are stored as one."""
        return FrameMeans(self.stored_frames)

    @cached_property
    def backend(self) -> Backend:
        """Where the work is done."""
        tls = tls_files(self.tls_ca_file, self.tls_cert, self.tls_key)
        return Backend(
            WORKER_SIZING, self.workers, self.scheduler, self.slurm, self.wait_minutes, tls
        )

    def largest_shard(self, device: torch.device) -> float:
        """Return the size of the largest shard in MiB; on a GPU larger, to fill its batches."""
        if self.shard_mib is not None:
            return self.shard_mib
        return 256.0 if "cuda" in (self.device, device.type) else 64.0

    def as_json(self, device: torch.device) -> dict[str, Any]:
        """Return the settings with their defaults resolved, as JSON values."""
        return {
            "layers": self.layers,
            "stored_frames": self.stored_frames,
            "dtype": self.dtype,
            "precision": self.precision,
            "max_seconds": self.max_seconds,
            "device": self.device if self.backend.remote else str(device),
            **self.backend.as_json(device),
            "shard_mib": self.largest_shard(device),
            "store": self.store,
            "compression": self.compression,
        }
