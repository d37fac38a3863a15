"""Two hosts that mount one GlusterFS export, in namespaces of this machine, with cables to cut."""

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mser.tests.support.cache_processes import works
from mser.tests.support.real_systems import ON_DEMAND, WANTED

needs_gluster = pytest.mark.skipif(
    not WANTED
    or os.geteuid() != 0
    or not all(map(shutil.which, ("glusterfs", "glusterfsd", "ip", "nsenter", "unshare")))
    or not Path("/dev/fuse").exists()
    or not works("unshare", "--net", "--uts", "--mount", "true"),
    reason="needs root, namespaces, /dev/fuse, glusterfs-server, glusterfs-client and iproute2; "
    + ON_DEMAND,
)
_SERVER = """
volume posix
  type storage/posix
  option directory {brick}
end-volume
volume locks
  type features/locks
  subvolumes posix
end-volume
volume brick
  type performance/io-threads
  subvolumes locks
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address 10.98.0.1
  option transport.socket.listen-port 24010
  option auth.addr.brick.allow *
  subvolumes brick
end-volume
"""
_CLIENT = """
volume remote
  type protocol/client
  option transport-type tcp
  option remote-host 10.98.0.1
  option remote-port 24010
  option remote-subvolume brick
  option ping-timeout 3
end-volume
volume writebehind
  type performance/write-behind
  subvolumes remote
end-volume
"""


class TwoHosts:
    """The hosts ``a`` and ``b``: both see the folder ``shared``, the server's ``brick``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shared, self.brick = folder, folder / "shared", folder / "brick"
        self._names = {host: f"mser{os.getpid()}{host}" for host in ("a", "b", "s")}
        self._anchors: dict[str, int] = {}

    def command(self, host: str, *command: str) -> list[str]:
        """Return a command line that runs a command on a host."""
        inside = ["nsenter", "-t", str(self._anchors[host]), "--net", "--uts", "--mount"]
        return [*inside, *command]

    def link(self, host: str, state: str) -> None:
        """Cut the cable of a host (``down``), or plug it in (``up``)."""
        _run("ip", "-n", self._names["s"], "link", "set", f"v{host}", state)

    @contextmanager
    def running(self) -> Iterator["TwoHosts"]:
        """Start the server and the hosts; stop all at the end."""
        with ExitStack() as stack:
            for name in self._names.values():
                _run("ip", "netns", "add", name)
                stack.callback(_run, "ip", "netns", "del", name)
            self._plug_in()
            for folder in (self.shared, self.brick):
                folder.mkdir()
            (self.folder / "server.vol").write_text(_SERVER.format(brick=self.brick))
            (self.folder / "client.vol").write_text(_CLIENT)
            stack.enter_context(self._started("s", ["glusterfsd", *self._options("server")]))
            time.sleep(1)
            for host in ("a", "b"):
                mount = shlex.join(["glusterfs", *self._options("client", host), str(self.shared)])
                script = f"hostname host{host}; exec {mount}"
                shell = ["unshare", "--uts", "--mount", "sh", "-c", script]
                process = stack.enter_context(self._started(host, shell))
                self._anchors[host] = process.pid
                deadline = time.monotonic() + 60
                while not works(*self.command(host, "mountpoint", "-q", str(self.shared))):
                    assert time.monotonic() < deadline, "the export is not mounted"
                    time.sleep(0.1)
            yield self

    def _options(self, volume: str, name: str = "server") -> list[str]:
        paths = (f"{volume}.vol", f"{name}.log", f"{name}.pid")
        file, log, pid = (str(self.folder / path) for path in paths)
        return ["-N", "-f", file, "-l", log, "-p", pid]

    def _plug_in(self) -> None:
        switch = self._names["s"]
        _run("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", switch, "addr", "add", "10.98.0.1/24", "dev", "br0")
        _run("ip", "-n", switch, "link", "set", "br0", "up")
        for number, host in enumerate(("a", "b"), start=11):
            name = self._names[host]
            peer = ("type", "veth", "peer", "name", "eth0", "netns", name)
            _run("ip", "-n", switch, "link", "add", f"v{host}", *peer)
            _run("ip", "-n", switch, "link", "set", f"v{host}", "master", "br0", "up")
            _run("ip", "-n", name, "link", "set", "lo", "up")
            _run("ip", "-n", name, "addr", "add", f"10.98.0.{number}/24", "dev", "eth0")
            _run("ip", "-n", name, "link", "set", "eth0", "up")

    @contextmanager
    def _started(self, host: str, command: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
        inside = ["ip", "netns", "exec", self._names[host], *command]
        with subprocess.Popen(inside, cwd=self.folder) as process:
            try:
                yield process
            finally:
                process.kill()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=60, capture_output=True)
