"""Worker processes that are killed: each is noted with advice, and hopeless work ends."""

import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest
from distributed import Status
from distributed.protocol.pickle import dumps

from mser.pipeline.compute import killed_workers
from mser.pipeline.compute.killed_workers import KilledWorkers
from mser.pipeline.errors import PipelineError

NOTE = (
    "mser: a worker process was killed by signal 9, as Linux does when the memory is full: if this "
    "comes again, give more memory\n"
)


class Client:
    """A client of a scheduler with one nanny."""

    def __init__(self, nanny: Any) -> None:
        self.nanny: Any = nanny
        self.handlers: dict[str, Any] = {}
        nanny.log_event = lambda topic, event: self.handlers[topic]((0.0, event))

    def subscribe_topic(self, topic, handler):
        self.handlers[topic] = handler

    def register_plugin(self, plugin):
        plugin.setup(self.nanny)


def test_each_kill_that_a_nanny_sees_is_noted_and_the_nanny_goes_on(capfd):
    ends: list[int] = []
    nanny = SimpleNamespace(name="job 1", status=Status.running, _on_worker_exit_sync=ends.append)
    KilledWorkers("give more memory").watch(cast(Any, Client(nanny)))
    for code in (0, 1, -signal.SIGTERM, -signal.SIGKILL):
        nanny._on_worker_exit_sync(code)
    nanny.status = Status.closing  # then the nanny itself has killed the process
    nanny._on_worker_exit_sync(-signal.SIGKILL)
    assert capfd.readouterr().err == NOTE
    assert ends == [0, 1, -signal.SIGTERM, -signal.SIGKILL, -signal.SIGKILL]


def test_the_plugin_of_a_nanny_needs_neither_mser_nor_torch():
    sent: list[bytes] = []
    nanny = SimpleNamespace(_on_worker_exit_sync=None)
    client = Client(nanny)
    client.register_plugin = lambda plugin: sent.append(dumps(plugin))  # type: ignore[method-assign]
    KilledWorkers("give more memory").watch(cast(Any, client))
    check = (
        "import pickle, sys; sys.modules['mser'] = None; plugin = pickle.load(sys.stdin.buffer); "
        "assert plugin.name == 'mser-report-killed'; assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", check]
    done = subprocess.run(command, check=False, input=sent[0], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_kills_before_any_result_end_the_work(monkeypatch):
    monkeypatch.setattr(killed_workers, "_MOST_BEFORE_A_RESULT", 3)
    killed = KilledWorkers("give more memory")
    killed.add()
    killed.add()
    killed.check()
    killed.add()
    with pytest.raises(PipelineError, match=r"^3 worker processes were killed by signal 9 before"):
        killed.check()


def test_kills_after_a_result_do_not_end_the_work(monkeypatch):
    monkeypatch.setattr(killed_workers, "_MOST_BEFORE_A_RESULT", 3)
    killed = KilledWorkers("give more memory")
    killed.advanced()
    for _ in range(10):
        killed.add()
    killed.check()
