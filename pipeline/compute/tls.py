"""TLS of Dask: only who holds the key can connect to a scheduler or a worker.

Without TLS anyone who reaches the port of a scheduler or a worker can run code as its owner, also
another user of the same machine.
"""

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import PipelineError, UsageError

if TYPE_CHECKING:
    from distributed import Security

_WORKER_PARTS = {"ca_file": "tls_ca_file", "cert": "tls_worker_cert", "key": "tls_worker_key"}


@dataclass(frozen=True)
class TlsFiles:
    """Certificates for a scheduler that runs already, as files in PEM format."""

    ca_file: Path
    """The certificate of the authority that signed the scheduler's certificate."""
    cert: Path
    """The certificate of this command."""
    key: Path | None = None
    """The key of ``cert``; default: it is in the same file."""

    def security(self) -> "Security":
        """Return the certificates as Dask takes them.

        Raises:
            UsageError: a file is absent, or is not what it should be.
        """
        from distributed import Security  # noqa: PLC0415 -- a second to import

        options = {"tls_ca_file": self.ca_file, "tls_client_cert": self.cert}
        if self.key:
            options["tls_client_key"] = self.key
        for path in options.values():
            if not path.expanduser().is_file():
                raise UsageError(f"{path}: this file of a certificate or key does not exist")
        names = {name: str(path.expanduser()) for name, path in options.items()}
        security = Security(require_encryption=True, **names)
        try:
            security.get_connection_args("client")
        except OSError as error:  # ssl.SSLError is one
            raise UsageError(
                f"TLS with {', '.join(names.values())}: {error.strerror or error}: give a "
                "certificate and its key in PEM format"
            ) from None
        return security


def tls_files(ca_file: Path | None, cert: Path | None, key: Path | None) -> TlsFiles | None:
    """Return the certificates that the options give, ``None`` if they give none.

    Raises:
        UsageError: only a part is given.
    """
    if ca_file is None and cert is None and key is None:
        return None
    if ca_file is None or cert is None:
        raise UsageError("give --tls-ca-file and --tls-cert together")
    return TlsFiles(ca_file, cert, key)


def client_security(address: str, files: TlsFiles | None) -> "Security":
    """Return how to connect to the scheduler at an address.

    Without ``files``, Dask's own configuration may name the certificates.

    Raises:
        UsageError: the address needs certificates, or a file does not hold one.
    """
    import dask  # noqa: PLC0415 -- as above
    from distributed import Security  # noqa: PLC0415

    if files:
        return files.security()
    if address.startswith("tls://") and not dask.config.get("distributed.comm.tls.ca-file"):
        raise UsageError(f"scheduler '{address}': give --tls-ca-file and --tls-cert, too")
    return Security()


@contextmanager
def with_worker_files(security: "Security", folder: Path) -> "Iterator[Security]":
    """Write a temporary key for workers that read it from files; delete the files at the end.

    The files are in a new folder that only this user can open.

    Args:
        security: a key and a certificate in memory.
        folder: a folder that the machines of the workers see at the same path.

    Raises:
        PipelineError: the folder cannot be written.
    """
    try:
        files = tempfile.TemporaryDirectory(prefix=".mser-tls-", dir=folder.expanduser())
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        raise PipelineError(
            f"cannot write the key of the workers into {folder} ({error}): give "
            "shared_temp_directory, a folder that all machines see, in the SLURM file"
        ) from error
    with files as name:
        texts = security.get_tls_config_for_role("worker")
        in_files = copy.copy(security)
        for part, attribute in _WORKER_PARTS.items():
            path = Path(name, f"{part}.pem")
            path.write_text(texts[part], encoding="ascii")
            setattr(in_files, attribute, str(path))
        yield in_files
