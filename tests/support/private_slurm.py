"""A real SLURM on this machine: a controller and two nodes, in a network namespace of their own.

The memory of jobs is limited where the kernel has the controllers of cgroup v1.

It needs root, and of Debian's packages ``slurm-wlm``, ``munge``, ``iproute2`` and ``util-linux``.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mser.tests.support.fork_server import MSER, Fork, fork_server
from mser.tests.support.real_systems import ON_DEMAND, WANTED

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "ip", "unshare")
# The controller of the memory, with which SLURM limits the memory of a job; cgroup v1.
LIMITS_MEMORY = Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists()
_LIMITS = "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\nConstrainRAMSpace=yes\n"
# One address beyond 127/8: without it the C library resolves no names.
_NETWORK = "ip link set lo up; ip address add 10.99.9.1/32 dev lo; echo ready; exec sleep infinity"
_CONFIGURATION = """
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmctldPort=16817
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin={task}
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
KillWait=10
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port=16821 CPUs=2 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port=16822 CPUs=2 RealMemory=4000
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why no SLURM can be started here; ``None`` if one can."""
    if not WANTED:
        return f"a private SLURM takes a minute: {ON_DEMAND}"
    if os.geteuid() != 0:
        return "a private SLURM needs root"
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"a private SLURM needs {', '.join(missing)} (packages slurm-wlm and munge)"
    tried = subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True)
    return "this machine allows no network namespace" if tried.returncode else None


class PrivateSlurm:
    """A running SLURM."""

    def __init__(self, folder: Path, namespace: int) -> None:
        self.folder, self._namespace = folder, namespace
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *command: object) -> str:
        """Run a command in the namespace, and return what it prints."""
        inside = ["nsenter", "--net", "--target", str(self._namespace), *map(str, command)]
        done = subprocess.run(
            inside, env=self.environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    def mser(self, *arguments: object) -> Fork:
        """Start mser in the namespace, in a session of its own."""
        enter = (
            "import ctypes, os\n"
            f"network = os.open('/proc/{self._namespace}/ns/net', os.O_RDONLY)\n"
            "assert ctypes.CDLL(None).setns(network, 0) == 0\n"
        )
        return fork_server().start(
            enter + MSER, *arguments, environment=self.environment, session=True
        )

    def jobs(self, state: str = "RUNNING,PENDING,COMPLETING") -> list[str]:
        """The numbers of the jobs in one of these states."""
        return self.run("squeue", "--noheader", "--format=%i", f"--states={state}").split()


@contextmanager
def private_slurm(folder: Path) -> Iterator[PrivateSlurm]:
    """Start SLURM with its files in an empty folder, and stop all its processes at the end."""
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool-n1", "spool-n2", "munge"):
        (folder / name).mkdir(mode=0o700)
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o400)
    task = "task/cgroup" if LIMITS_MEMORY else "task/none"
    configuration = _CONFIGURATION.format(folder=folder, host=host, task=task)
    (folder / "slurm.conf").write_text(configuration)
    (folder / "cgroup.conf").write_text(_LIMITS)
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", _NETWORK], stdout=subprocess.PIPE, text=True
    ) as namespace:
        try:
            assert namespace.stdout is not None
            assert namespace.stdout.readline() == "ready\n"
            slurm = PrivateSlurm(folder, namespace.pid)
            files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log"}
            options = [f"--{option}={folder}/munge/{name}" for option, name in files.items()]
            slurm.run("munged", "--force", f"--seed-file={folder}/munge/seed", *options)
            slurm.run("slurmctld", "-c")
            slurm.run("slurmd", "-N", "n1")
            slurm.run("slurmd", "-N", "n2")
            for _ in range(600):
                if slurm.run("sinfo", "--noheader", "--format=%T %D") == "idle 2\n":
                    break
                time.sleep(0.1)
            yield slurm
        finally:
            for path in (*folder.glob("*.pid"), folder / "munge" / "pid"):
                with suppress(OSError, ValueError):
                    os.kill(int(path.read_text()), signal.SIGTERM)
            namespace.kill()
