"""A real SLURM: cancelled jobs, an interrupted command, an array of commands, a training."""

import json
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mser.cache import FeatureCache
from mser.cache.shard import read_rows
from mser.tests.support.private_slurm import LIMITS_MEMORY, PrivateSlurm, private_slurm, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSlurm]:
    with private_slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def command(tmp_path: Path, corpus_root: Path, encoders: dict[str, str]) -> list[object]:
    """An extraction of many shards in one SLURM job."""
    file = tmp_path / "slurm.toml"
    file.write_text(
        f'cores = 1\nmemory = "1 GB"\nlog_directory = "{tmp_path}/logs"\n'
        f'shared_temp_directory = "{tmp_path}"\n'
    )
    return [
        *("extract", "--dataset", "synthetic", "--root", corpus_root),
        *("--cache", tmp_path / "cache", "--modalities", "speech", "--shard-mib", 1e-4),
        *("--speech-encoder", encoders["speech"], "--slurm", file, "--json"),
    ]


def shards(folder: Path) -> list[Path]:
    return [*folder.glob("cache/synthetic/*/shards/[0-9]*")]


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen")


def test_a_cancelled_job_is_submitted_again(
    slurm: PrivateSlurm, command: list[object], tmp_path: Path
) -> None:
    with slurm.mser(*command) as running:
        wait_for(lambda: running.poll() is not None or shards(tmp_path))
        (job,) = slurm.jobs()
        slurm.run("scancel", job)
        out, err = running.communicate()
    assert running.returncode == 0, err
    (speech,) = json.loads(out)["modalities"]
    # A worker may die between its commit and its report; its utterances are not counted as new.
    assert 90 <= speech["new"] <= 96
    assert (speech["pending"], speech["quarantined"]) == (0, [])
    entry = FeatureCache(tmp_path / "cache").open("synthetic", modality="speech")
    assert len(set(entry.ids)) == len(entry) == 96
    assert f"mser: SLURM job {job} ended (CANCELLED): submitting another one\n" in err
    wait_for(lambda: not slurm.jobs())


def test_an_array_of_plain_commands_shares_an_entry(
    slurm: PrivateSlurm, command: list[object], tmp_path: Path
) -> None:
    plain = [sys.executable, "-m", "mser", *command[: command.index("--slurm")], "--workers", 0]
    script = tmp_path / "job.sh"
    begin = (  # together, however SLURM starts them
        f"cd {tmp_path}; touch begun-$SLURM_ARRAY_TASK_ID\n"
        "until test -e begun-0 -a -e begun-1 -a -e begun-2; do sleep 0.1; done\n"
    )
    script.write_text(f"#!/bin/sh\n{begin}exec {shlex.join(map(str, plain))}\n")
    logs = f"--output={tmp_path}/job-%a.log"
    slurm.run("sbatch", "--wait", "--array=0-2", "--mem=1G", logs, script)
    counts = [
        int(match[1])
        for log in tmp_path.glob("job-*.log")
        if (match := re.search(r"([0-9]+) new", log.read_text()))
    ]
    entry = FeatureCache(tmp_path / "cache").open("synthetic", modality="speech")
    stored: list[Any] = [
        id
        for path in shards(tmp_path)
        for id in read_rows(entry.folder / "shards", path.name)["id"].to_pylist()
    ]
    assert sorted(stored) == list(entry.ids)
    assert len(stored) == 96
    assert sum(count > 0 for count in counts) >= 2, counts


def test_a_training_in_jobs_of_one_core_predicts_the_same_bits(
    slurm: PrivateSlurm, command: list[object], filled_cache: Path, tmp_path: Path
) -> None:
    training = [
        *("train-head", "--cache", filled_cache, "--dataset", "synthetic", "--head", "hbf"),
        *("--protocol", "speaker-folds", "--set", "head.width=16", "--set", "epochs=2"),
    ]
    for name, where in (("here", []), ("jobs", ["--slurm", command[command.index("--slurm") + 1]])):
        with slurm.mser(*training, *where, "--out", tmp_path / name) as running:
            _, err = running.communicate()
        assert running.returncode == 0, err
    here, jobs = (tmp_path / name / "predictions.csv" for name in ("here", "jobs"))
    assert here.read_bytes() == jobs.read_bytes()
    environments = [
        json.loads((tmp_path / n / "environment.json").read_bytes()) for n in ("here", "jobs")
    ]
    assert [environment["threads"] for environment in environments] == [1, 1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_jobs_and_removes_the_key(
    slurm: PrivateSlurm, command: list[object], tmp_path: Path, number: signal.Signals
) -> None:
    with slurm.mser(*command) as running:
        wait_for(lambda: running.poll() is not None or shards(tmp_path))
        assert [*tmp_path.glob(".mser-tls-*/key.pem")]
        os.killpg(running.pid, number)
        out, err = running.communicate()
    assert running.returncode == -number
    assert out == ""
    assert "finished work is kept" in err.splitlines()[-1]
    wait_for(lambda: not slurm.jobs())
    assert not [*tmp_path.glob(".mser-tls-*")]
    assert 0 < len(FeatureCache(tmp_path / "cache").open("synthetic", modality="speech")) < 96
    assert [*(tmp_path / "cache").rglob("leases/*.json")] == []


@pytest.mark.skipif(not LIMITS_MEMORY, reason="SLURM cannot limit the memory of jobs here")
def test_an_extraction_without_enough_memory_ends_with_the_setting_that_helps(
    slurm: PrivateSlurm, command: list[object], tmp_path: Path
) -> None:
    file = tmp_path / "slurm.toml"
    file.write_text(file.read_text().replace("1 GB", "40 MB"))
    with slurm.mser(*command) as running:
        _, err = running.communicate()
    assert running.returncode == 1
    *notes, last = err.splitlines()
    ended = r"SLURM job [0-9]+ ended \(OUT_OF_MEMORY\): submitting another one; if this comes again"
    assert re.search(ended, "\n".join(notes)), err
    assert "give more memory, or fewer processes" in last
    wait_for(lambda: not slurm.jobs())
    for entry in FeatureCache(tmp_path / "cache").entries("synthetic"):
        assert (len(entry), entry.quarantine) == (0, {}), "an utterance was blamed"
