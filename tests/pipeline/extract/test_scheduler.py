"""Extraction at a running scheduler whose workers die: the same bits."""

import json
import os
import signal
from pathlib import Path

import pytest
from distributed import Client

from mser.cache import verify
from mser.pipeline.corpora import synthetic
from mser.tests.support.dask_processes import ENVIRONMENT, kill, started, wait_for
from mser.tests.support.extract_runs import entry, shards_now
from mser.tests.support.fork_server import MSER, Fork, fork_server

UTTERANCES = 16


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scheduled") / "corpus"
    synthetic.make(root, utterances_per_session=UTTERANCES // 4)
    return root


def start(root: Path, cache: Path, encoders: dict[str, str], *options: object) -> Fork:
    command = [
        *("extract", "--dataset", "synthetic"),
        *("--root", root, "--cache", cache, "--json", "--device", "cpu", "--shard-mib", "0.001"),
        *("--speech-encoder", encoders["speech"], "--text-encoder", encoders["text"], *options),
    ]
    return fork_server().start(MSER, *command, environment=ENVIRONMENT)


def finished(process: Fork) -> dict[str, int]:
    """Wait for a run; return how many utterances of each modality are new."""
    out, err = process.communicate(timeout=600)
    assert (process.returncode, err) == (0, "")
    return {modality["modality"]: modality["new"] for modality in json.loads(out)["modalities"]}


def committed(cache: Path) -> list[Path]:
    return [path for path in shards_now(cache) if not path.name.startswith(".")]


def checksums(cache: Path, modality: str) -> dict[str, str]:
    stored = entry(cache, modality, "synthetic")
    assert not verify(stored.folder).damage
    table = stored.index.table
    return dict(zip(table["id"].to_pylist(), table["checksum"].to_pylist(), strict=True))


@pytest.fixture(scope="module")
def expected(corpus, encoders, tmp_path_factory):
    """Modality → id → checksum, by a run in one process."""
    cache = tmp_path_factory.mktemp("alone")
    finished(start(corpus, cache, encoders, "--workers", 0))
    expected = {modality: checksums(cache, modality) for modality in encoders}
    assert {modality: len(ids) for modality, ids in expected.items()} == dict.fromkeys(
        encoders, UTTERANCES
    )
    assert len(set(expected["speech"].values())) == UTTERANCES  # texts repeat
    return expected


def test_workers_that_die_or_leave_change_nothing(corpus, encoders, expected, tmp_path):
    cache = tmp_path / "cache"
    with started(tmp_path, workers=3) as there:
        running = start(corpus, cache, encoders, "--scheduler", there.address)
        wait_for(lambda: committed(cache), running)
        kill(there.workers[0])
        with Client(there.address, set_as_default=False) as client:
            client.retire_workers(list(client.nthreads())[:1])
        new = finished(running)
        # The scheduler and its workers keep running, and hold no task of the run.
        with Client(there.address, set_as_default=False) as client:
            assert len(client.nthreads()) >= 1
            assert client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) == 0
    # A worker may die between its commit and its report; its utterances are not counted as new.
    for modality in encoders:
        assert UTTERANCES - 4 <= new[modality] <= UTTERANCES
        assert checksums(cache, modality) == expected[modality]


def test_after_a_scheduler_dies_the_next_run_continues(corpus, encoders, expected, tmp_path):
    cache = tmp_path / "cache"
    with started(tmp_path, workers=1) as there:
        running = start(corpus, cache, encoders, "--scheduler", there.address)
        wait_for(lambda: committed(cache), running)
        os.killpg(there.scheduler.pid, signal.SIGKILL)
        out, err = running.communicate(timeout=120)
    assert (running.returncode, out) == (1, "")
    assert err == (
        f"mser: the connection to the scheduler at {there.address} is lost; finished work is kept: "
        "start a scheduler, then run the same command again\n"
    )
    before = {path: path.stat().st_mtime_ns for path in committed(cache)}
    new = finished(start(corpus, cache, encoders, "--workers", 0))
    assert 0 < sum(new.values()) < 2 * UTTERANCES
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for modality in encoders:
        assert checksums(cache, modality) == expected[modality]
