"""Ceph's RADOS gateway on this machine: a real S3 server, with one monitor and one OSD in memory.

It needs root and Debian's packages ``ceph-mon ceph-osd radosgw``. All ports are of the loopback
interface, nobody has to sign in, and everything is gone at the end. An answer of the loopback
interface takes no time to travel; :func:`distant` adds the time of a network.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from uuid import uuid4

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "NO_PROXY": "127.0.0.1",
}
_CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{port}]
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd objectstore = memstore
memstore device bytes = {memory}
mon allow pool size one = true
run dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
"""
_PIECE = 2**20  # bytes that the proxy receives at once


def missing_programs() -> list[str]:
    """Return which of the programs are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextmanager
def ceph_gateway(folder: Path, memory: int = 4 * 2**30) -> Iterator[str]:
    """Start a gateway and yield its URL; ``memory`` is the size of its store in bytes.

    ``ENVIRONMENT`` has the credentials.
    """
    port, fsid, osd = free_port(), str(uuid4()), str(uuid4())
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()
    configuration = folder / "ceph.conf"
    configuration.write_text(
        _CONFIGURATION.format(fsid=fsid, port=port, memory=memory, folder=folder)
    )
    log = (folder / "output.log").open("w")
    environment = {**os.environ, "CEPH_CONF": str(configuration)}
    started = []

    def call(*command: str) -> None:
        subprocess.run(command, env=environment, stdout=log, stderr=log, check=True, timeout=120)

    def start(*command: str) -> None:
        started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    try:
        address = ("--addv", "a", f"[v2:127.0.0.1:{port}]")
        call("monmaptool", "--create", "--fsid", fsid, *address, str(folder / "monmap"))
        call("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(folder / "monmap"))
        start("ceph-mon", "-i", "a", "-f")
        call("ceph", "osd", "new", osd)
        call("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", osd)
        start("ceph-osd", "-i", "0", "-f")
        key, secret = ENVIRONMENT["AWS_ACCESS_KEY_ID"], ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]
        user = ("--uid=benchmark", "--display-name=benchmark")
        call("radosgw-admin", "user", "create", *user, f"--access-key={key}", f"--secret={secret}")
        web = free_port()
        frontend = f"beast endpoint=127.0.0.1:{web}"
        start("radosgw", "-f", "--rgw-frontends", frontend)
        _wait_for(web)
        yield f"http://127.0.0.1:{web}"
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()
        log.close()


@contextmanager
def distant(url: str, delay: float) -> Iterator[str]:
    """Yield a URL where the server of ``url`` answers each request ``delay`` seconds later.

    A process passes the bytes on. It holds what a client sends for ``delay``, and the first bytes
    of a new connection for twice as long, as for a round trip to connect. Requests on several
    connections wait at the same time, and the bandwidth has no limit.
    """
    port, target = free_port(), int(url.rpartition(":")[2])
    process = get_context("spawn").Process(target=_pass_on, args=(port, target, delay), daemon=True)
    process.start()
    try:
        _wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.join()


def free_port() -> int:
    """Return a port of the loopback interface that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    raise TimeoutError(f"nothing answers at port {port}")


def _pass_on(port: int, target: int, delay: float) -> None:
    asyncio.run(_serve(port, target, delay))


async def _serve(port: int, target: int, delay: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened = time.monotonic()
        answers, requests = await asyncio.open_connection("127.0.0.1", target, limit=_PIECE)
        await asyncio.gather(
            _copy(reader, requests, delay, opened + 2 * delay), _copy(answers, writer, 0, 0)
        )

    server = await asyncio.start_server(connected, "127.0.0.1", port, limit=_PIECE)
    await server.serve_forever()


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float, earliest: float
) -> None:
    """Pass on what arrives, each piece ``delay`` seconds later and none before ``earliest``."""
    later = asyncio.get_running_loop().call_at
    due = earliest
    with suppress(OSError):
        while piece := await reader.read(_PIECE):
            due = max(due + 1e-6, time.monotonic() + delay)  # no two at once: they keep their order
            later(due, writer.write, piece)
            await writer.drain()
    later(max(due, time.monotonic()), writer.close)
