"""Export to safetensors files: each utterance is a tensor, whose name is the id."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import save_file

from ...cache.formats.arrays import Array
from ..errors import PipelineError
from .selection import Selection

_RESERVED = "__metadata__"  # the name of the metadata in a safetensors file
_MAX_BYTES = 10**9  # per file, because a file is assembled in memory


def write_safetensors(selection: Selection, folder: Path) -> None:
    """Write (layers, frames, dim) tensors into files of at most a gigabyte."""
    if _RESERVED in selection.entry.ids:
        raise PipelineError(
            f"a tensor cannot have the name of the utterance '{_RESERVED}': export to npy instead"
        )
    tensors: dict[str, Array] = {}
    size = number = 0
    for id, array in selection:
        if tensors and size + array.nbytes > _MAX_BYTES:
            _write(selection, folder, number, tensors)
            tensors, size, number = {}, 0, number + 1
        tensors[id] = array  # contiguous, as safetensors requires
        size += array.nbytes
    _write(selection, folder, number, tensors)


def _write(selection: Selection, folder: Path, number: int, tensors: dict[str, Array]) -> None:
    described = selection.describe()
    layers = ",".join(map(str, described["layers"]))
    metadata = {name: str(value) for name, value in described.items()} | {"layers": layers}
    path = folder / f"features-{number:05}.safetensors"
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        raise PipelineError(f"cannot write {path}: {error}") from error
    path.chmod(folder.stat().st_mode & 0o666)  # the library lets only the owner read it
