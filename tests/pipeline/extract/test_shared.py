"""Several runs of `mser extract` on one entry share the work, even if one is killed."""

import json
import platform
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mser.cache import FeatureCache, verify
from mser.cache.storage.leases import Lease
from mser.pipeline.corpora import synthetic
from mser.tests.support.cache_entries import path_of
from mser.tests.support.extract_runs import features, ids_of, run, shards
from mser.tests.support.fork_server import MSER, Fork, fork_server

UTTERANCES = 40


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A corpus. Do not change it."""
    root = tmp_path_factory.mktemp("shared") / "corpus"
    synthetic.make(root, utterances_per_session=UTTERANCES // 4)
    return root


@pytest.fixture(scope="module")
def alone(root, encoders, tmp_path_factory):
    """The cache of a single run. Do not change it."""
    cache = tmp_path_factory.mktemp("alone") / "cache"
    run(root, cache, {"speech": encoders["speech"]}, "synthetic", shard_mib=0.001)
    return cache


def start(root: Path, cache: Path, encoder: str) -> Fork:
    command = [
        *("extract", "--dataset", "synthetic"),
        *("--root", str(root), "--cache", str(cache), "--modalities", "speech", "--json"),
        *("--speech-encoder", encoder, "--device", "cpu", "--workers", "0"),
        *("--shard-mib", "0.001"),
    ]
    return fork_server().start(MSER, *command)


def at_work(root: Path, cache: Path, encoder: str) -> tuple[Fork, Path]:
    """Start a run; return it and the first lease that it holds."""
    process = start(root, cache, encoder)
    while not (held := list(cache.glob("*/*/leases/[0-9]*.json"))):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.001)
    return process, held[0]


def result(process: Fork) -> dict[str, Any]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    (modality,) = json.loads(out)["modalities"]
    counts: dict[str, Any] = modality
    return counts


def assert_complete(cache: Path, alone: Path) -> None:
    """Each utterance is in one shard, and equals that of a single run."""
    whole = [shard for shard in shards(cache) if not shard.name.startswith(".")]
    stored = [id for shard in whole for id in ids_of(shard)]
    assert len(stored) == len(set(stored)) == UTTERANCES
    expected = features(alone, "speech", "synthetic")
    for id, ours in features(cache, "speech", "synthetic").items():
        np.testing.assert_array_equal(ours, expected[id])
    entry = FeatureCache(cache).open("synthetic")
    assert not verify(entry.folder).damage
    # A shard that a killed run was writing is hidden and has no effect.
    assert list((path_of(entry) / "leases").glob("[!.]*")) == []


def test_two_runs_at_once_do_the_work_once(root, alone, encoders, tmp_path):
    cache = tmp_path / "cache"
    results = [
        result(process) for process in [start(root, cache, encoders["speech"]) for _ in range(2)]
    ]
    # Together they do all the work, and no utterance twice.
    assert sum(report["new"] for report in results) == UTTERANCES
    for report in results:
        assert report["new"] + report["elsewhere"] + report["present"] == UTTERANCES
    assert_complete(cache, alone)


def test_a_run_takes_over_the_shard_of_a_killed_run(root, alone, encoders, tmp_path):
    cache = tmp_path / "cache"
    victim, _ = at_work(root, cache, encoders["speech"])
    survivor = start(root, cache, encoders["speech"])
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    report = result(survivor)
    assert report["new"] + report["elsewhere"] + report["present"] == UTTERANCES
    # The unfinished shard of the killed run stays there until gc.
    assert_complete(cache, alone)


def test_a_run_waits_for_the_shard_of_another_host(root, alone, encoders, tmp_path):
    cache = tmp_path / "cache"
    process, lease = at_work(root, cache, encoders["speech"])
    process.kill()
    process.communicate()
    now = time.time()
    lease.write_text(json.dumps(vars(Lease(f"not-{platform.node()}", 1, now, now))))
    waiting = start(root, cache, encoders["speech"])
    entry = lease.parents[1]
    while len([shard for shard in (entry / "shards").iterdir() if shard.name[0] != "."]) < 30:
        assert waiting.poll() is None, "it did not wait for the other host"
        time.sleep(0.01)
    assert waiting.poll() is None
    lease.unlink()  # the other host releases it
    assert result(waiting)["pending"] == 0
    assert_complete(cache, alone)
