"""Worker processes of this machine: what is printed when one is killed, and who the user is."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mser.pipeline.compute.local_cluster import local_cluster

NAMELESS = """
import getpass, pwd
def unknown(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = unknown
import mser.pipeline
print(getpass.getuser())
"""


def test_a_worker_that_the_kernel_kills_is_reported_with_what_helps(
    capfd: pytest.CaptureFixture[str],
) -> None:
    printed = ""
    with local_cluster(1, 1, []) as cluster:
        (worker,) = cluster.client.run(os.getpid).values()
        os.kill(worker, signal.SIGKILL)
        for _ in range(6000):
            printed += capfd.readouterr().err
            if printed:
                break
            time.sleep(0.01)
    assert printed == (
        "mser: a worker process was killed by signal 9, as Linux does when the memory is full: if "
        "this comes again, give fewer --workers, or more memory\n"
    )
    assert capfd.readouterr().err == ""  # the end of a cluster kills no worker that answers


def test_a_user_without_a_name_has_a_number() -> None:
    """As in many containers; PyTorch asks for the name."""
    unnamed = {k: v for k, v in os.environ.items() if not k.endswith(("USER", "NAME"))}
    done = subprocess.run(
        [sys.executable, "-c", NAMELESS], env=unnamed, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{os.getuid()}\n"
