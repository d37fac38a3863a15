"""A lease has one holder at a time, and a dead holder's lease is taken over."""

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mser.cache.storage import leases
from mser.cache.storage.leases import (
    DEAD_AFTER,
    HEARTBEAT,
    Lease,
    lease,
    read_leases,
    return_leases,
)
from mser.cache.storage.local import LocalFolder
from mser.tests.support import cache_processes
from mser.tests.support.cache_processes import PATIENCE, Start, exit_code, state, wait_for

FILE = "job.0000.json"


@pytest.fixture
def folder(tmp_path: Path) -> LocalFolder:
    """An empty folder for leases."""
    leases_folder = LocalFolder(tmp_path / "leases")
    leases_folder.make()
    return leases_folder


def put(folder: LocalFolder, ago: float = 0.0, name: str = FILE, **changes: str | int) -> None:
    """Write the lease of a process on another host, with a heartbeat some seconds ago."""
    beat = time.time() - ago
    lease = replace(Lease("another", os.getpid(), beat, beat), **changes)  # type: ignore[arg-type]
    (folder.at / name).write_text(json.dumps(asdict(lease)))


def put_ended(folder: LocalFolder, name: str = FILE) -> None:
    """Write the lease of a process of this host that has ended; no process has this number."""
    put(folder, name=name, host=leases._host(), process=2**22 + 1)


def take(folder: LocalFolder, work: str = "job", patience: float = 0.0) -> bool:
    with lease(folder, work, patience) as acquired:
        return acquired


def only(folder: LocalFolder) -> Lease:
    """The only lease in the folder."""
    (found,) = read_leases(folder).values()
    assert found is not None
    return found


# Acquired and released ----------------------------------------------------------------------------


def test_a_released_lease_leaves_no_file(folder: LocalFolder) -> None:
    with lease(folder, "job") as acquired:
        assert acquired
        assert only(folder).alive
        assert only(folder).process == os.getpid()
        assert not take(folder)
        assert not take(folder, patience=0.05)
        assert take(folder, "job-2")
        assert take(folder, "jo")
        assert list(read_leases(folder)) == [FILE]
    assert os.listdir(folder.at) == []
    assert take(folder)


def test_a_lease_is_released_when_the_work_fails(folder: LocalFolder) -> None:
    with suppress(KeyboardInterrupt), lease(folder, "job") as acquired:
        assert acquired
        raise KeyboardInterrupt
    assert os.listdir(folder.at) == []


@pytest.mark.parametrize("refuse", [False, True])
def test_a_process_that_ends_returns_its_leases(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch, refuse: bool
) -> None:
    monkeypatch.setattr(leases, "_refused", threading.Event())
    with lease(folder, "job") as acquired:
        return_leases(refuse=refuse)
        assert acquired
        assert os.listdir(folder.at) == []
    assert take(folder) is not refuse
    assert os.listdir(folder.at) == []


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_lease_that_is_being_acquired_does_not_stay_behind(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch, interrupted: bool
) -> None:
    create = LocalFolder.create

    def and_end(self: LocalFolder, name: str, content: bytes) -> bool:
        created = create(self, name, content)
        if interrupted:  # on this thread, so the function does not go on
            raise KeyboardInterrupt
        return_leases()  # on another thread, while this one goes on
        return created

    monkeypatch.setattr(LocalFolder, "create", and_end)
    with suppress(KeyboardInterrupt):
        assert not take(folder)
    return_leases()
    assert os.listdir(folder.at) == []


def test_a_failed_attempt_does_not_release_the_lease(folder: LocalFolder) -> None:
    with lease(folder, "job"):
        with suppress(KeyboardInterrupt), lease(folder, "job") as acquired:
            assert not acquired
            raise KeyboardInterrupt
        assert list(read_leases(folder)) == [FILE]


def test_a_patient_process_gets_the_lease_when_it_is_released(folder: LocalFolder) -> None:
    got: list[bool] = []
    waiting = threading.Thread(target=lambda: got.append(take(folder, patience=PATIENCE)))
    with lease(folder, "job"):
        waiting.start()
        time.sleep(0.05)
        assert got == []
    waiting.join(PATIENCE)
    assert got == [True]


def test_of_many_threads_one_holds_a_lease_at_a_time(folder: LocalFolder) -> None:
    inside: list[int] = []
    seen: list[list[int]] = []

    def work(who: int) -> None:
        for _ in range(5):
            with lease(folder, "job", PATIENCE) as acquired:
                assert acquired
                inside.append(who)
                time.sleep(0.001)
                seen.append(list(inside))
                inside.remove(who)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(seen) == sorted([[who] for who in range(5)] * 5)
    assert os.listdir(folder.at) == []


# Heartbeats ---------------------------------------------------------------------------------------


def test_a_holder_writes_heartbeats(folder: LocalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT", 0.01)
    with lease(folder, "job"):
        first = only(folder)
        wait_for(lambda: only(folder).beat > first.beat)
        assert replace(only(folder), beat=first.beat) == first
    assert os.listdir(folder.at) == []


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let some seconds pass on this host's stopwatch, which no clock changes."""
    right, passed = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: right() + passed[0])

    def wait(seconds: float) -> None:
        passed[0] += seconds

    return wait


@pytest.mark.parametrize("ahead", [-86_400.0, -600.0, 0.0, 600.0, 1e9])
def test_a_holder_on_another_host_is_respected_until_its_heartbeat_stops(
    folder: LocalFolder, stopwatch: Callable[[float], None], ahead: float
) -> None:
    """Its clock may be ahead or behind by any time."""
    for beat in range(20):
        put(folder, -ahead - beat * HEARTBEAT)
        assert not take(folder)
        stopwatch(HEARTBEAT)
    assert not take(folder)
    stopwatch(DEAD_AFTER - 2 * HEARTBEAT)
    assert not take(folder)
    assert list(read_leases(folder)) == [FILE]
    stopwatch(2 * HEARTBEAT)
    assert take(folder)
    assert os.listdir(folder.at) == []


def test_a_suspended_watcher_does_not_take_a_lease_that_was_renewed(
    folder: LocalFolder, stopwatch: Callable[[float], None]
) -> None:
    put(folder)
    assert not take(folder)
    stopwatch(10 * DEAD_AFTER)
    put(folder, -10 * DEAD_AFTER)
    assert not take(folder)


def test_a_patient_process_takes_over_from_a_holder_that_stopped(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "DEAD_AFTER", 0.05)
    put(folder)
    assert take(folder, patience=PATIENCE)


def test_the_lease_of_a_process_that_ended_on_this_host_is_taken_over(folder: LocalFolder) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        wait_for(lambda: state(process.pid) == "Z")
        # A zombie: it has ended and was not reaped. In some containers, it never is.
        put(folder, host=leases._host(), process=process.pid)
        assert take(folder)
    put(folder, host=leases._host(), process=process.pid)
    assert take(folder)


def test_a_process_number_of_another_container_is_not_compared(folder: LocalFolder) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    put(folder, host=f"{platform.node()} pid:[1]", process=process.pid)
    assert not take(folder)


def test_a_suspended_holder_does_not_take_its_lease_back(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT", 0.01)
    with lease(folder, "job"):
        first = only(folder)
        wait_for(lambda: only(folder).beat > first.beat)
        (folder.at / "heir").write_text(json.dumps(asdict(replace(first, host="heir"))))
        (folder.at / "heir").replace(folder.at / FILE)
        time.sleep(0.1)
        assert only(folder).host == "heir"
    assert only(folder).host == "heir"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"host": "another", "pro',
        b"\xff\x00",
        b"null",
        b"[1, 2]",
        100_000 * b"[",
        b"{}",
        b'{"host": "another", "process": "x", "since": 0, "beat": 0}',
        b'{"host": "another", "process": 1, "since": 0, "beat": []}',
        b'{"host": "another", "process": 1, "since": 0, "beat": NaN}',
        b'{"host": "another", "process": 1e999, "since": 0, "beat": 1e999}',
    ],
)
def test_a_lease_that_cannot_be_read_is_taken_over(folder: LocalFolder, content: bytes) -> None:
    (folder.at / FILE).write_bytes(content)
    assert take(folder)
    assert os.listdir(folder.at) == []


def test_an_impossible_process_number_is_a_dead_holder(folder: LocalFolder) -> None:
    put(folder, host=leases._host(), process=10**30)
    assert take(folder)


def test_other_files_are_kept(folder: LocalFolder) -> None:
    for name in (".tmp-12-job.0000.json", "notes.txt", "job.json"):
        (folder.at / name).write_text("{")
    before = os.listdir(folder.at)
    assert read_leases(folder) == {}
    assert take(folder)
    assert os.listdir(folder.at) == before


# Another process acts between two steps -----------------------------------------------------------


def before(monkeypatch: pytest.MonkeyPatch, operation: str, then: Callable[[], object]) -> None:
    """Call ``then`` before the next ``operation`` in a folder."""
    original = getattr(LocalFolder, operation)

    def interrupted(self: LocalFolder, *arguments: object) -> object:
        monkeypatch.setattr(LocalFolder, operation, original)
        then()
        return original(self, *arguments)

    monkeypatch.setattr(LocalFolder, operation, interrupted)


def test_a_lease_that_is_released_and_acquired_is_not_taken_over(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = lease(folder, "job"), lease(folder, "job")
    assert first.__enter__()

    def release() -> None:
        first.__exit__(None, None, None)
        before(monkeypatch, "create", lambda: got.append(other.__enter__()))

    got: list[bool] = []
    before(monkeypatch, "read", release)
    assert not take(folder)
    assert got == [True]
    assert only(folder).alive
    other.__exit__(None, None, None)
    assert os.listdir(folder.at) == []


def test_a_lease_is_not_taken_over_twice(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_ended(folder)
    other = lease(folder, "job")
    got: list[bool] = []

    def overtake() -> None:
        got.extend([take(folder), other.__enter__()])

    before(monkeypatch, "create", overtake)
    assert not take(folder)
    assert got == [True, True]
    assert only(folder).alive
    other.__exit__(None, None, None)
    assert os.listdir(folder.at) == []


# In several processes -----------------------------------------------------------------------------


def test_of_many_processes_one_holds_a_lease_at_a_time(
    folder: LocalFolder, tmp_path: Path, start: Start
) -> None:
    log = tmp_path / "log"
    running = [start(cache_processes.take_turns, folder.at, log, who, 15) for who in "abcdef"]
    assert [exit_code(process) for process in running] == [0] * 6
    notes = log.read_text().split()
    assert sorted(notes) == sorted(f"{sign}{who}" for sign in "+-" for who in "abcdef" * 15)
    for acquired, released in zip(notes[::2], notes[1::2], strict=True):
        assert (acquired[0], released) == ("+", f"-{acquired[1:]}")
    assert os.listdir(folder.at) == []


def test_the_lease_of_a_killed_holder_is_taken_over_at_once(
    folder: LocalFolder, start: Start
) -> None:
    holder = start(cache_processes.hold, folder.at, "job")
    wait_for(lambda: read_leases(folder))
    assert not take(folder)
    os.kill(only(folder).process, signal.SIGKILL)
    assert exit_code(holder) == -signal.SIGKILL
    assert only(folder).process == holder.pid
    assert take(folder)
    assert os.listdir(folder.at) == []


def test_a_suspended_holder_is_respected(folder: LocalFolder, start: Start) -> None:
    holder = start(cache_processes.hold, folder.at, "job")
    wait_for(lambda: read_leases(folder))
    cache_processes.stop(holder)
    assert not take(folder)
    assert not take(folder, patience=0.1)


def test_one_of_many_takes_over_the_lease_of_a_dead_holder(
    folder: LocalFolder, tmp_path: Path, start: Start
) -> None:
    answers, count, rounds = tmp_path / "answers", 4, 10
    answers.mkdir()
    for number in range(rounds):
        put_ended(folder, f"job-{number}.0000.json")
    running = [
        start(cache_processes.take_over, folder.at, answers, who, count, rounds)
        for who in range(count)
    ]
    assert [exit_code(process) for process in running] == [0] * count
    for number in range(rounds):
        assert len(list(answers.glob(f"got-{number}-*"))) == 1
        assert len(list(answers.glob(f"not-{number}-*"))) == count - 1
    assert os.listdir(folder.at) == []
