"""Safetensors files: each utterance is a tensor, whose name is its id."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import save_file

from ..errors import PipelineError
from .arrays import Array
from .selection import Selection

_RESERVED = "__metadata__"  # where a safetensors file keeps what is no tensor
_MOST_BYTES = 10**9  # of one file: it is put together in memory


def write_safetensors(selection: Selection, folder: Path) -> None:
    """Write (layers, frames, dim) tensors into files of a gigabyte at most."""
    if _RESERVED in selection.entry.ids:
        raise PipelineError(
            f"an utterance is called '{_RESERVED}', which no tensor can be: export to npy"
        )
    tensors: dict[str, Array] = {}
    size = number = 0
    for id, array in selection:
        if tensors and size + array.nbytes > _MOST_BYTES:
            _write(selection, folder, number, tensors)
            tensors, size, number = {}, 0, number + 1
        tensors[id] = array  # contiguous, which safetensors takes for granted
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
    path.chmod(folder.stat().st_mode & 0o666)  # the library makes it for one's own eyes only
