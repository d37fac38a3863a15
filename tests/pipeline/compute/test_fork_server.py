"""The fork server of worker processes: its environment, its end, and that it has no CUDA."""

import gc
import json
import multiprocessing
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from mser.pipeline.compute import fork_server as fork_server_module
from mser.pipeline.compute.fork_server import early_server, start_method
from mser.pipeline.compute.local_cluster import local_cluster
from mser.pipeline.extract.engine import WORKER_SIZING
from mser.tests.support.cache_processes import state, wait_for
from mser.tests.support.fork_server import MODULES, fork_server

VARIABLES = ("MSER_TEST", "MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_")


def ended(process: int) -> bool:
    try:
        return state(process) == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_each_cluster_has_the_environment_of_its_time(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1234")
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    for value in ("before", None):
        if value:
            monkeypatch.setenv("MSER_TEST", value)
        else:
            monkeypatch.delenv("MSER_TEST")
        with local_cluster(1, 1, []) as cluster:
            (parent,) = cluster.client.run(os.getppid).values()
            (found,) = cluster.client.run(lambda: [*map(os.getenv, VARIABLES)]).values()
            assert b"multiprocessing.forkserver" in Path(f"/proc/{parent}/cmdline").read_bytes()
        assert found == [value, "1", "1234"]
        assert "MALLOC_ARENA_MAX" not in os.environ
        wait_for(partial(ended, parent))


def test_a_fork_server_that_runs_already_is_left_alone():
    multiprocessing.set_forkserver_preload([])
    context = multiprocessing.get_context("forkserver")
    try:
        theirs = context.Process(target=os.getpid)
        theirs.start()
        with start_method(["json"], {}) as method:
            assert method == "spawn"
        theirs.join()
        assert theirs.exitcode == 0
    finally:
        fork_server_module._server._stop()


def test_workers_are_forked_from_a_server_that_started_before() -> None:
    with early_server(["json"]):
        early = fork_server_module._server._forkserver_pid
        with local_cluster(1, 1, []) as cluster:
            (parent,) = cluster.client.run(os.getppid).values()
            (found,) = cluster.client.run(lambda: os.environ["MALLOC_ARENA_MAX"]).values()
        assert (parent, found) == (early, "1")
    wait_for(partial(ended, early))
    assert "MALLOC_ARENA_MAX" not in os.environ


def test_workers_do_not_search_what_their_server_imported_for_garbage() -> None:
    with local_cluster(1, 1, [], ["transformers.modeling_layers"]) as cluster:
        (kept,) = cluster.client.run(gc.get_freeze_count).values()
        (threshold,) = cluster.client.run(gc.get_threshold).values()
        (collects,) = cluster.client.run(gc.isenabled).values()
    wait_for(lambda: fork_server_module._server._forkserver_pid is None)
    assert kept > 100_000
    assert threshold[0] > 10_000  # Python's default is 700
    assert collects


def test_a_server_that_no_worker_needed_ends_at_once() -> None:
    with early_server(["distributed"]):
        early = fork_server_module._server._forkserver_pid
        assert not ended(early)
        with early_server(["json"]):  # there is one already
            assert fork_server_module._server._forkserver_pid == early
    assert ended(early)
    with start_method([]) as method:
        assert method == "forkserver"
        assert fork_server_module._server._forkserver_pid != early


KILLED = """
import json, os, time
from mser.pipeline.compute.local_cluster import local_cluster

with local_cluster(1, 1, []) as cluster:
    (worker,) = cluster.client.run(lambda: (os.getpid(), os.getppid())).values()
    print(json.dumps(worker), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_worker_and_server_end_with_a_process_that_ends_by_a_signal(number):
    with fork_server().start(KILLED, session=True, workers=True) as running:
        processes = json.loads(running.stdout.readline())
        assert not any(map(ended, processes))
        running.send_signal(number)
        wait_for(lambda: all(map(ended, processes)))


def test_what_workers_import_asks_for_no_gpu():
    """A process that asked the driver cannot fork processes that use CUDA."""
    assert {"distributed.nanny", *WORKER_SIZING.imports} <= set(MODULES)
    asked = fork_server().run("from mser.tests.support import fork_server as f; print(f.ASKED)")
    assert (asked.stdout, asked.stderr) == ("[]\n", "")
