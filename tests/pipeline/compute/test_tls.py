"""Only who holds the key can connect: to the workers of a command, and to a scheduler with TLS."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from distributed import LocalCluster, Security, rpc

from mser.pipeline.compute.backend import Backend
from mser.pipeline.compute.dask_cluster import check_scheduler, running_scheduler
from mser.pipeline.compute.local_cluster import local_cluster
from mser.pipeline.compute.tls import TlsFiles, tls_files, with_worker_files
from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.extract.engine import WORKER_SIZING


def listening() -> set[tuple[str, int]]:
    """Address and port of every socket on which this process or a child of it listens."""
    here = psutil.Process()
    return {
        (connection.laddr.ip, connection.laddr.port)
        for process in (here, *here.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


async def identity(address: str, security: Security) -> str:
    """What the server at an address is, in the words of Dask."""
    arguments = security.get_connection_args("client")
    async with asyncio.timeout(20), rpc(address, timeout=5, connection_args=arguments) as server:
        return str((await server.identity())["type"])


def answer_to_http(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        try:
            return connection.recv(100)
        except ConnectionResetError:
            return b""


def test_the_workers_of_this_machine_answer_only_who_holds_their_key():
    before = listening()
    with local_cluster(1, 1, []) as cluster:
        opened = listening() - before
        assert len(opened) >= 3  # the scheduler, a worker, and what starts it again
        assert {address for address, _ in opened} == {"127.0.0.1"}
        own = cluster.client.security
        found, strangers = [], {"tcp": Security(), "tls": Security.temporary()}
        for _, port in sorted(opened):
            for protocol, security in strangers.items():
                with pytest.raises(OSError, match="before comm was established"):
                    asyncio.run(identity(f"{protocol}://127.0.0.1:{port}", security))
            assert answer_to_http(port) == b""
            found.append(asyncio.run(identity(f"tls://127.0.0.1:{port}", own)))
        assert sorted(found) == ["SilentScheduler", "_Nanny", "_SilentWorker"]


def test_the_key_of_slurm_workers_is_in_files_for_this_user_alone(tmp_path):
    security = Security.temporary()
    with with_worker_files(security, tmp_path) as in_files:
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o077 == 0
        worker = in_files.get_tls_config_for_role("worker")
        for part in ("ca_file", "cert", "key"):
            text = Path(worker[part]).read_text()
            assert text == security.get_tls_config_for_role("worker")[part]
        in_files.get_listen_args("worker")  # the certificate and the key fit
        in_files.get_listen_args("scheduler")
    assert [*tmp_path.iterdir()] == []
    assert "\n" in security.tls_ca_file  # the original is in memory still


def test_a_folder_that_cannot_hold_the_key_is_named(tmp_path):
    message = rf"cannot write the key of the workers into {tmp_path}/none .*shared_temp_directory"
    with (
        pytest.raises(PipelineError, match=message),
        with_worker_files(Security.temporary(), tmp_path / "none"),
    ):
        pass


# A scheduler with certificates of the user --------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    folder = tmp_path_factory.mktemp("certificates")
    return written(folder, Security.temporary())


def written(folder: Path, security: Security) -> TlsFiles:
    parts = security.get_tls_config_for_role("client")
    for part in ("ca_file", "cert", "key"):
        (folder / f"{part}.pem").write_text(parts[part])
    return TlsFiles(folder / "ca_file.pem", folder / "cert.pem", folder / "key.pem")


@pytest.fixture(scope="module")
def address(files: TlsFiles) -> Iterator[str]:
    names = {"ca_file": files.ca_file, "scheduler_cert": files.cert, "scheduler_key": files.key}
    names |= {"worker_cert": files.cert, "worker_key": files.key}
    names |= {"client_cert": files.cert, "client_key": files.key}
    security = Security(
        require_encryption=True, **{f"tls_{name}": str(path) for name, path in names.items()}
    )
    with LocalCluster(
        processes=False,
        n_workers=1,
        threads_per_worker=1,
        protocol="tls",
        security=security,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield cluster.scheduler_address


def test_a_scheduler_with_tls_takes_the_certificates_of_the_options(files, address):
    backend = Backend(WORKER_SIZING, scheduler=address, tls=files)
    backend.check_available()
    with running_scheduler(address, 10.0, files) as cluster:
        assert cluster.client.submit(pow, 2, 5).result() == 32


def test_other_certificates_are_refused(address, tmp_path):
    others = written(tmp_path, Security.temporary())
    message = f"no Dask scheduler answers at {address} .*certificates that it trusts"
    with pytest.raises(PipelineError, match=message):
        check_scheduler(address, others)


def test_an_address_with_tls_needs_certificates(files, address):
    with pytest.raises(UsageError, match="give --tls-ca-file and --tls-cert, too"):
        check_scheduler(address)
    with pytest.raises(UsageError, match="need --scheduler tls://"):
        Backend(WORKER_SIZING, scheduler="tcp://a:1", tls=files)
    with pytest.raises(UsageError, match="together"):
        tls_files(files.ca_file, None, None)
    assert tls_files(None, None, None) is None


@pytest.mark.parametrize("part", ["ca_file", "cert", "key"])
def test_a_file_that_is_absent_or_not_a_certificate_is_named(files, tmp_path, part):
    path = tmp_path / "file.pem"
    wrong = TlsFiles(**{**vars(files), part: path})
    with pytest.raises(UsageError, match=f"{path}: this file of a certificate or key does not"):
        wrong.security()
    path.write_text("not a certificate")
    with pytest.raises(UsageError, match=rf"TLS with .*{path}.*: give a certificate and its key"):
        wrong.security()
