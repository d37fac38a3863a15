"""Several runs of `mser extract` on one entry share the work, whatever becomes of one of them."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from mser.cache import FeatureCache, verify
from mser.cache.storage.leases import Lease
from mser.pipeline.corpora import synthetic
from mser.tests.support.cache_entries import path_of
from mser.tests.support.extract_runs import features, ids_of, run, shards

UTTERANCES = 64


def start(root: Path, cache: Path, encoder: str) -> subprocess.Popen[str]:
    command = [
        *(str(Path(sys.executable).parent / "mser"), "extract", "--dataset", "synthetic"),
        *("--root", str(root), "--cache", str(cache), "--modalities", "speech", "--json"),
        *("--speech-encoder", encoder, "--device", "cpu", "--workers", "0"),
        *("--shard-mib", "0.001"),
    ]
    return subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def at_work(root: Path, cache: Path, encoder: str) -> tuple[subprocess.Popen[str], Path]:
    """Start a run, and return it with the first lease that it holds as soon as there is one."""
    process = start(root, cache, encoder)
    while not (held := list(cache.glob("*/*/leases/[0-9]*.json"))):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.001)
    return process, held[0]


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    printed, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    (modality,) = json.loads(printed)["modalities"]
    found: dict[str, Any] = modality
    return found


def assert_complete(root: Path, cache: Path, encoders: dict[str, str], tmp_path: Path) -> None:
    """Each utterance is in one shard, and is what one run alone makes of it."""
    whole = [shard for shard in shards(cache) if not shard.name.startswith(".")]
    stored = [id for shard in whole for id in ids_of(shard)]
    assert len(stored) == len(set(stored)) == UTTERANCES
    alone = {"speech": encoders["speech"]}
    run(root, tmp_path / "alone", alone, "synthetic", shard_mib=0.001)
    expected = features(tmp_path / "alone", "speech", "synthetic")
    for id, ours in features(cache, "speech", "synthetic").items():
        np.testing.assert_array_equal(ours, expected[id])
    entry = FeatureCache(cache).open("synthetic")
    assert not verify(entry.folder).damage
    # One that a killed run was just writing is hidden, and of no effect.
    assert list((path_of(entry) / "leases").glob("[!.]*")) == []


def test_two_runs_at_once_do_the_work_once(encoders, tmp_path):
    root, cache = tmp_path / "corpus", tmp_path / "cache"
    synthetic.make(root, utterances_per_session=UTTERANCES // 4)
    results = [result(one) for one in [start(root, cache, encoders["speech"]) for _ in range(2)]]
    # Together all of it, and neither has done what the other had.
    assert sum(one["new"] for one in results) == UTTERANCES
    for one in results:
        assert one["new"] + one["elsewhere"] + one["present"] == UTTERANCES
    assert_complete(root, cache, encoders, tmp_path)


def test_a_run_takes_over_what_a_killed_one_was_at(encoders, tmp_path):
    root, cache = tmp_path / "corpus", tmp_path / "cache"
    synthetic.make(root, utterances_per_session=UTTERANCES // 4)
    victim, _ = at_work(root, cache, encoders["speech"])
    survivor = start(root, cache, encoders["speech"])
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    one = result(survivor)
    assert one["new"] + one["elsewhere"] + one["present"] == UTTERANCES
    # What the victim had built and not yet brought in place lies there until gc.
    assert_complete(root, cache, encoders, tmp_path)


def test_a_run_waits_for_what_another_host_is_at(encoders, tmp_path):
    root, cache = tmp_path / "corpus", tmp_path / "cache"
    synthetic.make(root, utterances_per_session=UTTERANCES // 4)
    process, lease = at_work(root, cache, encoders["speech"])
    process.kill()
    process.communicate()
    now = time.time()
    lease.write_text(json.dumps(vars(Lease(f"not-{platform.node()}", 1, now, now))))
    waiting = start(root, cache, encoders["speech"])
    entry = lease.parents[1]
    while len([one for one in (entry / "shards").iterdir() if one.name[0] != "."]) < 30:
        assert waiting.poll() is None, "it did not wait for the other host"
        time.sleep(0.01)
    assert waiting.poll() is None
    lease.unlink()  # the other host gave it up
    assert result(waiting)["pending"] == 0
    assert_complete(root, cache, encoders, tmp_path)
