"""Writers that are killed again and again beside readers: nothing is lost, and no read is wrong.

The times of the kills follow from a seed, which ``MSER_STRESS_SEED`` changes.
"""

import json
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from mser.cache import Entry, FeatureCache
from mser.cache.maintenance.gc import collect_garbage
from mser.cache.maintenance.verify import verify
from mser.cache.storage.leases import read_leases
from mser.tests.support import stress_work
from mser.tests.support.cache_entries import path_of, same_bits
from mser.tests.support.cache_processes import Start, exit_code, stop
from mser.tests.support.stress_work import IDS, JOBS, features, hash_of, lease_of, rounds

pytestmark = pytest.mark.exhaustive

WRITERS, READERS = 4, 2
KILLS, WITH_A_LEASE = 20, 5  # at least so many, and of them so many while they held a lease


@pytest.fixture
def control(tmp_path: Path) -> Path:
    """The folder of the files that control the processes."""
    folder = tmp_path / "control"
    folder.mkdir()
    return folder


@pytest.fixture
def chance() -> random.Random:
    seed = os.environ.get("MSER_STRESS_SEED", "0")
    print(f"MSER_STRESS_SEED={seed}")
    return random.Random(seed)


def leases_of(process: BaseProcess, root: Path) -> list[str]:
    leases = stress_work.entry_folder(root) / "leases"
    return [
        name
        for name, lease in read_leases(leases).items()
        if lease and lease.process == process.pid
    ]


def check_readers(readers: list[BaseProcess], control: Path) -> None:
    (control / "stop").touch()
    assert [exit_code(reader) for reader in readers] == [0] * len(readers)
    reports = [json.loads(path.read_text()) for path in control.glob("report-*")]
    assert len(reports) == len(readers)
    assert all(report["opened"] > 1 for report in reports)


def check_whole(root: Path, round_: int) -> Entry:
    """The entry holds every utterance once, as it was last extracted."""
    entry = FeatureCache(root).open("stressed")
    assert entry.index.table["id"].to_pylist() == IDS
    for id in IDS:
        assert entry.content_hash(id) == hash_of(round_, id)
        assert same_bits(entry[id], features(hash_of(round_, id)))
    damage = verify(entry.folder).damage
    assert damage == []
    return entry


def check_swept(root: Path, round_: int) -> None:
    """All files outside the entry are garbage, no others are, and they can be deleted."""
    entry = check_whole(root, round_)
    path, used = path_of(entry), set(entry.index.shards())
    report = collect_garbage(FeatureCache(root), minimum_age=0)
    garbage = {Path(item.what) for item in report.garbage}
    kept = {path / "entry.json", path / entry.index_name, path / "quarantine.jsonl"}
    for file in root.rglob("*"):
        if file.is_dir():
            continue
        of_entry = (
            file in kept
            or (file.parent == path / "runs" and not file.name.startswith("."))
            or (path / "shards" in file.parents and file.relative_to(path).parts[1] in used)
        )
        assert of_entry != bool(garbage & {file, *file.parents}), file

    assert collect_garbage(FeatureCache(root), delete=True, minimum_age=0).deleted
    assert not [path for path in garbage if path.exists()]
    assert collect_garbage(FeatureCache(root), minimum_age=0).garbage == []
    check_whole(root, round_)


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_killed_writers_lose_nothing_that_readers_see(
    tmp_path: Path, control: Path, chance: random.Random, start: Start, store: str
) -> None:
    root = tmp_path / "cache"
    readers = [
        start(stress_work.read, root, control, control / f"report-{number}", chance.random())
        for number in range(READERS)
    ]
    readers.append(start(stress_work.watch, root, control, control / "report-watch"))
    writers = [start(stress_work.write, root, store, control) for _ in range(WRITERS)]
    kills = 0
    with_a_lease: list[str] = []
    while kills < KILLS or len(with_a_lease) < WITH_A_LEASE:
        time.sleep(chance.uniform(0.02, 0.6))
        victim = chance.randrange(WRITERS)
        stop(writers[victim])  # another process must not take its leases over before we count them
        with_a_lease += leases_of(writers[victim], root)
        writers[victim].kill()
        assert exit_code(writers[victim]) == -signal.SIGKILL
        writers[victim] = start(stress_work.write, root, store, control)
        assert all(process.is_alive() for process in (*writers, *readers))
        kills += 1
        assert kills < 10 * KILLS
    print(f"{kills} kills in {rounds(control)} rounds, with {with_a_lease}")
    (control / "last").touch()
    assert [exit_code(writer) for writer in writers] == [0] * WRITERS
    check_readers(readers, control)

    # One more run finds nothing to do.
    last = rounds(control)
    writer = stress_work.writer(root, store)
    shards = writer.shards()
    stress_work.extract(writer, last)
    assert writer.shards() == shards
    check_swept(root, last)


def test_a_writer_that_was_suspended_for_long_does_no_harm(
    tmp_path: Path, control: Path, chance: random.Random, start: Start
) -> None:
    root = tmp_path / "cache"
    (control / "last").touch()
    reader = start(stress_work.read, root, control, control / "report-0", chance.random())
    dead_after = 4.0  # seconds
    writers = [start(stress_work.write, root, "zarr", control, dead_after) for _ in range(3)]
    jobs = {f"{lease_of(number)}.0000.json" for number, _ in JOBS}
    while True:
        time.sleep(chance.uniform(0.002, 0.02))
        stop(writers[0])
        assert writers[0].pid is not None
        if jobs & set(leases_of(writers[0], root)):
            break
        os.kill(writers[0].pid, signal.SIGCONT)
        assert writers[0].is_alive(), "it did its work before it could be stopped"
    # The others respect its lease while it may be alive, and then do its work.
    assert [exit_code(writer) for writer in writers[1:]] == [0, 0]
    check_whole(root, 1)
    os.kill(writers[0].pid, signal.SIGCONT)
    assert exit_code(writers[0]) == 0
    check_readers([reader], control)
    check_swept(root, 1)
