"""Backends and clusters: addresses, GPUs, requirements of workers, dispatch of jobs."""

import contextlib
import os
import pickle
import signal
import socket
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import dask
import pytest
import torch
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st

from mser.cache import EntrySpec, EntryWriter
from mser.cache.storage.local import LocalFolder
from mser.pipeline.compute import dask_cluster
from mser.pipeline.compute.backend import Backend
from mser.pipeline.compute.dask_cluster import (
    Cluster,
    check_scheduler,
    running_scheduler,
)
from mser.pipeline.compute.device import visible_gpus
from mser.pipeline.compute.dispatch import _sent, check_workers, on_cluster
from mser.pipeline.compute.local_cluster import local_cluster
from mser.pipeline.compute.requirements import WorkerTask, missing_requirement
from mser.pipeline.encoders import EncoderSettings
from mser.pipeline.encoders.checkpoint_files import EncoderFiles
from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.extract.engine import (
    WORKER_SIZING,
    default_workers,
    requirements_of,
    threads_of,
)
from mser.pipeline.extract.sharding import PlannedUtterance, ShardJob
from mser.pipeline.extract.worker import ShardReport, extract_shard
from mser.pipeline.provenance import provenance
from mser.tests.support.dask_processes import started

CPU = torch.device("cpu")


@pytest.fixture
def job(tmp_path: Path) -> ShardJob:
    """A job whose folders exist."""
    for name in ("entry", "encoder", "clips"):
        (tmp_path / name).mkdir()
    encoder = EncoderSettings(EncoderFiles("small", tmp_path / "encoder"), "wav2vec2")
    spec = EntrySpec("meld", "speech", "small", {}, layers=(0, 1), dim=8, dtype="float16")
    writer = EntryWriter(LocalFolder(tmp_path / "entry"), spec, {})
    item = PlannedUtterance("train/dia0_utt0", tmp_path / "clips" / "a.wav", "hash", 10)
    return ShardJob(0, "lease-0", encoder, writer, (item,))


@pytest.fixture(scope="module")
def cluster_here():
    """A cluster in this process: fast, and the test can inspect its scheduler."""
    local = Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0")
    with local as client:
        yield Cluster(client, "the scheduler", "start one", 1.0, started_here=False)


# Options ------------------------------------------------------------------------------------------


def test_backends_exclude_each_other(tmp_path):
    file = tmp_path / "slurm.toml"
    file.write_text('cores = 1\nmemory = "1 GB"')
    for two in (
        {"workers": 2, "scheduler": "tcp://a:1"},
        {"workers": 0, "slurm": file},
        {"scheduler": "tcp://a:1", "slurm": file},
    ):
        with pytest.raises(UsageError, match="exclude each other: give only one of them"):
            Backend(WORKER_SIZING, **two)


@pytest.mark.parametrize(
    "address", ["", "node1", "node1:", ":8786", "tcp://node1", "http://a b:1", "a:0", "a:65536"]
)
def test_a_malformed_address_is_a_usage_error(address):
    with pytest.raises(UsageError, match="give an address such as tcp://node1:8786"):
        Backend(WORKER_SIZING, scheduler=address)


@pytest.mark.parametrize("address", ["node1:8786", "tcp://10.0.0.1:1", "tls://[::1]:65535"])
def test_well_formed_addresses(address):
    assert Backend(WORKER_SIZING, scheduler=address).remote


def test_wait_minutes_needs_a_scheduler_or_slurm(tmp_path):
    with pytest.raises(UsageError, match="--wait-minutes"):
        Backend(WORKER_SIZING, workers=2, wait_minutes=1)
    with pytest.raises(UsageError, match="--wait-minutes"):
        Backend(WORKER_SIZING, scheduler="tcp://a:1", wait_minutes=-1)


def test_a_worker_does_several_jobs_at_once():
    assert threads_of(CPU, 4) == 4
    assert threads_of(torch.device("cuda"), 16) == 3  # one decodes, one computes, one writes


def test_a_worker_has_a_group_of_cores(monkeypatch):
    for count, workers in ((1, 1), (2, 1), (4, 1), (5, 2), (16, 4)):
        monkeypatch.setattr("mser.pipeline.extract.engine.cores", lambda n=count: n)
        assert default_workers(CPU) == workers


# On this machine ----------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["0", "1", "7", "GPU-8932f937", "MIG-0e15"]), unique=True))
def test_only_gpus_that_this_process_may_use_are_visible(names):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.device_count", lambda: len(names))
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        assert visible_gpus() == [str(number) for number in range(len(names))]
        patch.setenv("CUDA_VISIBLE_DEVICES", ",".join(names))
        assert visible_gpus() == names


@pytest.mark.parametrize(
    ("gpus", "cores", "gigabytes", "workers"),
    [
        (1, 16, 141, 8),
        (1, 16, 80, 5),
        (1, 16, 24, 1),
        (1, 1, 80, 1),
        (4, 32, 80, 16),
        (1, 8, 11, 1),
    ],
)
def test_workers_share_a_gpu_as_its_memory_allows(monkeypatch, gpus, cores, gigabytes, workers):
    gpu = SimpleNamespace(total_memory=gigabytes * 10**9)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: gpu)
    monkeypatch.setattr("mser.pipeline.extract.engine.cores", lambda: cores)
    assert default_workers(torch.device("cuda")) == workers


def test_gpus_after_an_invalid_number_are_ignored(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,-1,3")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert visible_gpus() == ["2"]


def test_each_worker_is_a_new_process_with_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(os, "only_in_this_process", True, raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    asks_to_fork = {"distributed.worker.multiprocessing-method": "fork"}
    with dask.config.set(asks_to_fork), local_cluster(3, 2, ["4", "MIG-0e15"]) as cluster:
        gpus = cluster.client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
        assert sorted(gpus.values()) == ["4", "4", "MIG-0e15"]
        inherited = cluster.client.run(eval, "hasattr(__import__('os'), 'only_in_this_process')")
        assert set(inherited.values()) == {False}
        assert cluster.threads() == 3 * 2
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


# At a scheduler -----------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [None, b"SSH-2.0-OpenSSH_9.6\r\n" + 100 * b"x"])
def test_another_program_at_the_address_is_an_error(monkeypatch, message):
    monkeypatch.setattr(dask_cluster, "_CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        address = f"tcp://127.0.0.1:{stranger.getsockname()[1]}"
        taken = []

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    taken.append(stranger.accept()[0])
                    taken[-1].sendall(message)

        if message:
            threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(PipelineError, match=f"no Dask scheduler answers at {address}"):
            check_scheduler(address)
    for connection in taken:
        connection.close()


def test_no_scheduler_at_the_address_is_an_error(monkeypatch):
    monkeypatch.setattr(dask_cluster, "_CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(PipelineError, match="start one with 'dask scheduler'"):
        check_scheduler(address)


def test_a_scheduler_without_workers_is_an_error_after_the_wait(tmp_path, capfd):
    with started(tmp_path, workers=0) as there:
        message = r"no worker for 1 s; finished work is kept: start a worker with 'dask worker tcp:"
        with (
            running_scheduler(there.address, wait_seconds=1.0) as cluster,
            pytest.raises(PipelineError, match=message),
        ):
            cluster.threads()
        err = capfd.readouterr().err
        assert err.startswith(f"mser: the scheduler at {there.address}: no worker yet, waiting")
        assert err.count("\n") == 1
        with running_scheduler(there.address, wait_seconds=60.0) as cluster:
            os.killpg(there.scheduler.pid, signal.SIGKILL)
            with pytest.raises(PipelineError, match="is lost; finished work is kept"):
                cluster.threads()
    assert capfd.readouterr().err == ""


# What a worker must have --------------------------------------------------------------------------


def test_a_worker_like_this_process_lacks_nothing(job):
    assert missing_requirement(requirements_of([job])) is None


def test_requirements_contain_the_folders_and_the_gpu(job, tmp_path):
    other = replace(job.items[0], source=tmp_path / "clips" / "more" / "b.wav")
    jobs = [job, replace(job, items=(other,))]
    requirements = requirements_of(jobs)
    assert requirements.folders == tuple(
        sorted(tmp_path / name for name in ("clips", "encoder", "entry"))
    )
    assert not requirements.gpu
    assert requirements_of([replace(job, encoder=replace(job.encoder, device="cuda"))]).gpu


@pytest.mark.parametrize("gone", ["clips", "encoder", "entry"])
def test_a_worker_that_cannot_see_a_folder_is_named_before_any_work(
    job, cluster_here, tmp_path, gone
):
    (tmp_path / gone).rmdir()
    message = rf"^worker inproc://\S+ cannot see {tmp_path / gone}: share this folder"
    with pytest.raises(PipelineError, match=message):
        list(on_cluster(never, [job], cluster_here, requirements_of([job])))


def test_a_worker_with_another_version_is_named(job, cluster_here):
    versions = tuple((name, "0.0.1") for name, _ in requirements_of([job]).versions)
    requirements = replace(requirements_of([job]), versions=versions)
    with pytest.raises(PipelineError, match=r"^worker \S+ has mser \S+, this command has 0\.0\.1"):
        check_workers(cluster_here, requirements)


def test_a_worker_that_joins_later_is_checked_too(job, cluster_here):
    requirements = replace(requirements_of([job]), folders=(Path("/not/there"),))
    with pytest.raises(PipelineError, match="cannot see /not/there"):
        list(_sent(WorkerTask(never, requirements), [job], cluster_here))


def never(job: ShardJob) -> ShardReport:
    raise AssertionError("it was worked on")


# Dispatch of jobs ---------------------------------------------------------------------------------


def test_the_scheduler_holds_only_few_jobs_at_a_time(job, cluster_here):
    jobs = [replace(job, number=number) for number in range(300)]
    held, numbers = [], []
    for done, _ in on_cluster(stored, jobs, cluster_here):
        held.append(len(cluster_here.client.cluster.scheduler.tasks))
        numbers.append(done.number)
    assert sorted(numbers) == list(range(300))
    assert 1 < max(held) < 300 / 10


def stored(job: ShardJob) -> ShardReport:
    return ShardReport(job, ("a",))


def test_a_busy_job_comes_again(job, cluster_here, tmp_path):
    jobs = [replace(job, number=number) for number in range(5)]
    reports = list(on_cluster(partial(busy_at_first, tmp_path), jobs, cluster_here))
    assert sorted(done.number for done, _ in reports) == list(range(5))


def busy_at_first(folder: Path, job: ShardJob) -> ShardReport:
    seen = folder / f"seen-{job.number}"
    before = seen.exists()
    seen.touch()
    return ShardReport(job, busy=not before)


def test_one_pause_is_made_while_other_processes_do_all_jobs_that_are_left(
    job, cluster_here, tmp_path, monkeypatch
):
    pauses, sleep = [], time.sleep
    monkeypatch.setattr(
        "time.sleep", lambda seconds: pauses.append(1) if seconds == 77.0 else sleep(seconds)
    )
    work = partial(busy_at_first, tmp_path)
    assert [done for done, _ in on_cluster(work, [job], cluster_here, pause=77.0)] == [job]
    assert pauses == [1]


def test_no_process_waits_for_the_shard_of_another_one(job, monkeypatch):
    """A process that waited would come to each shard after the other one, and never do any."""
    job.writer.prepare()
    with job.writer.lease(job.lease):
        monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail(f"waited {seconds} s"))
        assert extract_shard(job).busy


def test_a_job_with_hundreds_of_utterances_is_small(job, tmp_path):
    """A job holds ids, paths and hashes; no features, weights or samples."""
    made = provenance(("mser", "torch"), settings={}, root=str(tmp_path))
    items = tuple(
        PlannedUtterance(
            f"train/dia{n}_utt0", tmp_path / "clips" / f"dia{n}_utt0.mp4", f"{n:064}", 200
        )
        for n in range(300)
    )
    large = replace(job, items=items, writer=replace(job.writer, provenance=made))
    task = WorkerTask(extract_shard, requirements_of([large]))
    assert len(pickle.dumps((task, large))) < 200 * len(items)


# On the command line ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (
            ["--workers", 2, "--scheduler", "tcp://a:1"],
            2,
            "--workers and --scheduler exclude each other",
        ),
        (["--scheduler", "node1"], 2, "scheduler 'node1': give an address"),
        (["--slurm", "none.toml"], 2, "--slurm none.toml: No such file"),
        (["--scheduler", "tcp://127.0.0.1:1"], 1, "no Dask scheduler answers at tcp://127.0.0.1:1"),
    ],
)
def test_an_unavailable_backend_is_one_sentence_and_writes_nothing(
    call, corpus_root, encoders, tmp_path, options, code, message
):
    status, out, err = call(
        *("extract", "--dataset", "synthetic", "--root", corpus_root, "--cache", tmp_path / "c"),
        *("--modalities", "text", "--text-encoder", encoders["text"], *options),
    )
    assert (status, out) == (code, "")
    assert err.startswith(f"mser: {message}")
    assert err.count("\n") == 1
    assert not (tmp_path / "c").exists()
