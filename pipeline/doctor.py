"""Check this machine: what is installed, and what is missing.

Nothing here may end in a traceback: a check that fails is itself a result. Every package is
imported by the function that checks it, and never at the top.
"""

import io
import os
import platform
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from math import pi
from pathlib import Path
from typing import Any

from .modalities import USUAL, modality_names

_NEEDED = ("torch", "transformers", "av", "zarr", "h5py")
_HUB_SECONDS = 4.0
_TONE = 0.5  # seconds of sound that are encoded as AAC and decoded
_SMALL_DISK = 5e9  # bytes: all layers of MELD take about nine times as much


@dataclass(frozen=True)
class Problem:
    """A problem and its solution in a sentence; if ``broken``, mser cannot work at all."""

    sentence: str
    broken: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """The result: facts by section and name, and the problems. Sizes are in bytes."""

    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """Whether a problem stops all work."""
        return any(problem.broken for problem in self.problems)

    def as_json(self) -> dict[str, Any]:
        """Return the diagnosis as JSON values."""
        return {**self.facts, "problems": [asdict(problem) for problem in self.problems]}

    def __str__(self) -> str:
        """Return one line per fact, then one line per problem."""
        lines = []
        for section, facts in self.facts.items():
            lines += [
                section,
                *(f"  {name:32}{_formatted(name, value)}" for name, value in facts.items()),
            ]
        if not self.problems:
            return "\n".join([*lines, "no problems found"])
        lines += [
            f"{'BROKEN' if problem.broken else 'problem'}: {problem.sentence}"
            for problem in self.problems
        ]
        return "\n".join(lines)


def doctor(cache: str, encoders: tuple[str, ...] = ()) -> Diagnosis:
    """Check this machine: packages, cores, devices, FFmpeg, the hub, the cache, SLURM.

    Args:
        cache: folder or URL of the cache.
        encoders: hub names of encoders; the files on this machine are checked.
    """
    diagnosis = Diagnosis()
    checks: dict[str, Callable[[list[Problem]], dict[str, Any]]] = {
        "packages": _packages,
        "machine": _machine,
        "devices": _devices,
        "FFmpeg": _ffmpeg,
        "hub": lambda problems: _hub(problems, encoders),
        "cache": lambda problems: _cache(problems, cache),
        "clusters": _clusters,
    }
    for section, check in checks.items():
        try:
            diagnosis.facts[section] = check(diagnosis.problems)
        except Exception as error:  # report it, and go on with the other checks
            diagnosis.facts[section] = {"checked": False}
            sentence = f"{section} cannot be checked ({_one_line(error)}): fix this and try again"
            diagnosis.problems.append(Problem(sentence, broken=section == "cache"))
    return diagnosis


def _packages(problems: list[Problem]) -> dict[str, Any]:
    facts: dict[str, Any] = {"python": platform.python_version(), "mser": _version("mser")}
    for name in _NEEDED:
        facts[name] = _version(name)
        try:
            import_module(name)
        except Exception as error:  # such as a shared library that does not match
            facts[name] = f"{facts[name]}, cannot be imported"
            sentence = f"{name} cannot be imported ({_one_line(error)}): install mser again"
            problems.append(Problem(sentence, broken=True))
    return facts | {"torchaudio": _torchaudio(problems)}


def _torchaudio(problems: list[Problem]) -> str:
    """Return what torchaudio can do beside the installed torch; only its own encoders need it."""
    pair = f"{_version('torchaudio')} beside torch {_version('torch')}"
    if _version("torchaudio") == "not installed":
        return "not installed: encoders 'torchaudio:…' cannot be used"
    try:
        import_module("torchaudio")
    except Exception as error:  # its libraries are built for one version of torch
        sentence = f"torchaudio {pair} cannot be imported ({_one_line(error)}): encoders "
        sentence += "'torchaudio:…' cannot be used, all others can; install a torchaudio for the "
        problems.append(Problem(sentence + "same version and CUDA as torch"))
        return f"{pair}, cannot be imported"
    return f"{pair}: encoders 'torchaudio:…' can be used"


def _machine(problems: list[Problem]) -> dict[str, Any]:
    import psutil  # noqa: PLC0415

    from .compute.device import cores  # noqa: PLC0415

    memory = psutil.virtual_memory()
    return {
        "platform": platform.platform(),
        "host": platform.node(),
        "cores": cores(),
        "cores of the machine": os.cpu_count(),
        "memory": memory.total,
        "free memory": memory.available,
    }


def _devices(problems: list[Problem]) -> dict[str, Any]:
    import torch  # noqa: PLC0415

    facts: dict[str, Any] = {"CUDA of torch": torch.version.cuda or "none"}
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            name = torch.cuda.get_device_name(number)
            facts[f"cuda:{number}"] = {"name": name, "memory": total, "free memory": free}
        return facts
    facts["GPU"] = "none: everything runs on the CPU, and extraction is slow"
    if shutil.which("nvidia-smi"):
        problems.append(
            Problem(
                "an NVIDIA driver is installed, but PyTorch finds no GPU: install torch for "
                "the CUDA version of the driver (see pytorch.org), or check nvidia-smi"
            )
        )
    return facts


def _ffmpeg(problems: list[Problem]) -> dict[str, Any]:
    import av  # noqa: PLC0415

    facts: dict[str, Any] = {"FFmpeg": av.ffmpeg_version_info}
    for name, numbers in av.library_versions.items():
        if name in ("libavcodec", "libavformat", "libswresample"):
            facts[name] = ".".join(map(str, numbers))
    try:
        facts["decodes AAC"] = _decodes_aac()
    except Exception as error:  # FFmpeg raises many classes
        facts["decodes AAC"] = False
        sentence = f"FFmpeg cannot decode AAC in MP4, the format of MELD ({_one_line(error)})"
        problems.append(
            Problem(f"{sentence}: install the wheel of PyAV with 'pip install av'", True)
        )
    return facts


def _decodes_aac() -> bool:
    """Encode a tone as AAC in MP4, and decode it in the same way as clips."""
    import av  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    from .extract.audio import decode  # noqa: PLC0415

    rate, file = 48_000, io.BytesIO()
    tone = 0.5 * np.sin(2 * pi * 440 * np.arange(int(_TONE * rate)) / rate)
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None].astype("float32"), "fltp", "mono")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    wave = decode(file.getvalue())
    loudness = float(np.sqrt(np.mean(wave**2)))
    if not 0.2 < loudness < 0.5:  # a sine of amplitude 0.5 has 0.35
        raise ValueError(f"a tone of RMS 0.35 is decoded with RMS {loudness:.2f}")
    return True


def _hub(problems: list[Problem], encoders: tuple[str, ...]) -> dict[str, Any]:
    from huggingface_hub import constants, try_to_load_from_cache  # noqa: PLC0415

    offline = bool(constants.HF_HUB_OFFLINE)
    reached, why = (None, "") if offline else _reached(str(constants.ENDPOINT))
    local = {
        name: isinstance(try_to_load_from_cache(name, "config.json"), str) for name in encoders
    }
    absent = [name for name, is_local in local.items() if not is_local]
    if absent and not reached:
        reason = "HF_HUB_OFFLINE is set" if offline else f"it does not answer ({why})"
        options = modality_names([f"--{modality}-encoder" for modality in USUAL], last="and")
        problems.append(
            Problem(
                f"{' and '.join(absent)} {'are' if len(absent) > 1 else 'is'} not on this machine, "
                f"and the Hugging Face hub cannot be used, since {reason}: give local folders with "
                f"{options}, or run 'hf download NAME' on a machine with access and share HF_HOME"
            )
        )
    return {
        "address": str(constants.ENDPOINT),
        "offline mode": offline,
        "reached": "not tried" if reached is None else reached,
        "HF_HOME": str(constants.HF_HOME),
        **{f"has {name}": is_local for name, is_local in local.items()},
    }


def _reached(address: str) -> tuple[bool, str]:
    """Return whether the hub answers, and if not, why; the DNS request may never return."""
    answer: list[tuple[bool, str]] = []

    def ask() -> None:
        try:
            from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # noqa: PLC0415

            status = get_session().head(address, timeout=_HUB_SECONDS).status_code
            answer.append((status < 500, f"status {status}"))
        except Exception as error:  # a network fails in many ways
            answer.append((False, _one_line(error)))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_HUB_SECONDS + 1)
    return answer[0] if answer else (False, f"no answer in {_HUB_SECONDS:g} s")


def _cache(problems: list[Problem], cache: str) -> dict[str, Any]:
    from ..cache import listing  # noqa: PLC0415
    from ..cache.storage.trial import try_folder  # noqa: PLC0415
    from .feature_cache import FeatureCache  # noqa: PLC0415

    store = FeatureCache(cache)
    facts: dict[str, Any] = {"place": str(store.root)}
    entries = [entry for entry in listing(store).entries if entry.pooled_from is None]
    facts["datasets"] = sorted({entry.dataset for entry in entries})
    facts["entries"] = len(entries)
    facts["size"] = sum(entry.bytes for entry in entries)
    problems += [
        Problem(f"{entry.dataset}/{entry.entry}: {entry.error}") for entry in entries if entry.error
    ]
    if store.root.path is None:
        facts["can be written"] = "not tried in an object store"
        return facts
    folder = _existing(store.root.path.absolute())
    facts["file system"] = _file_system(folder)
    facts["free"] = free = shutil.disk_usage(folder).free
    why = _unwritable(folder)
    facts["can be written"] = not why
    if why:
        sentence = f"{store.root} cannot be written ({why}), so nothing can be extracted: "
        sentence += "give another --cache, or ask for permission to write"
        problems.append(Problem(sentence, broken=not entries))
        return facts
    if free < _SMALL_DISK:
        sentence = f"{store.root} has {_size(free)} free, and a corpus needs far more: "
        problems.append(Problem(sentence + "give a --cache on a larger disk, or set MSER_CACHE"))
    trial = try_folder(folder)
    problems += map(Problem, trial.problems)
    return facts | trial.facts


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _unwritable(folder: Path) -> str:
    """Return why nothing can be written below a folder, or an empty text."""
    if not folder.is_dir():
        return f"{folder} is a file"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"mser")
            file.flush()
    except OSError as error:
        return error.strerror or _one_line(error)
    return ""


def _file_system(path: Path) -> str:
    import psutil  # noqa: PLC0415

    mounts = [
        mount for mount in psutil.disk_partitions(all=True) if path.is_relative_to(mount.mountpoint)
    ]
    nearest = max(mounts, key=lambda mount: len(mount.mountpoint), default=None)
    return f"{nearest.fstype} at {nearest.mountpoint}" if nearest else "unknown"


def _clusters(problems: list[Problem]) -> dict[str, Any]:
    sbatch, jobqueue = shutil.which("sbatch"), _version("dask-jobqueue")
    if sbatch and jobqueue == "not installed":
        problems.append(
            Problem(
                "SLURM is installed, but not dask-jobqueue, which --slurm needs: run "
                "pip install 'mser[slurm]'"
            )
        )
    return {"dask": _version("dask"), "dask-jobqueue": jobqueue, "sbatch": sbatch or "none"}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__


_SIZES = ("memory", "free memory", "free", "size")


def _formatted(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        rest = (f"{key} {_formatted(key, item)}" for key, item in value.items() if key != "name")
        return ", ".join([str(value["name"]), *rest])
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return _size(value) if name in _SIZES else str(value)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
