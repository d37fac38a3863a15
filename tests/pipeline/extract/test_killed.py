"""Extraction by workers, and after a kill: the same bits, each computed once."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from mser.cache import FeatureCache
from mser.pipeline.corpora import synthetic
from mser.tests.support.dask_processes import wait_for
from mser.tests.support.extract_runs import (
    entry,
    features,
    ids_of,
    reasons,
    run,
    shards,
    shards_now,
)
from mser.tests.support.fork_server import MSER, fork_server
from mser.tests.support.meld_tree import BAD_CLIPS, SPEECH_IDS, TEXT_IDS


@pytest.mark.usefixtures("quick_workers")
def test_two_workers_give_the_same_bits_as_none(meld, encoders, tmp_path):
    summary = run(meld, tmp_path / "two", encoders, workers=2, shard_mib=0.05)
    assert reasons(summary, "speech") == BAD_CLIPS
    run(meld, tmp_path / "none", encoders, shard_mib=0.05)
    for modality in encoders:
        ours, expected = (features(tmp_path / name, modality) for name in ("two", "none"))
        assert set(ours) == set(expected) == (SPEECH_IDS if modality == "speech" else TEXT_IDS)
        for id, stored in ours.items():
            np.testing.assert_array_equal(stored, expected[id])


def test_the_files_of_a_killed_writer_are_never_read(meld, filled, encoders):
    victim = next(path for path in shards(filled) if ids_of(path))
    left = victim.with_name(f".tmp-0123-{victim.name}")
    shutil.copytree(victim, left)
    (left / "zarr.json").write_text("{")
    contents = {modality: features(filled, modality) for modality in encoders}
    summary = run(meld, filled, encoders)
    assert [modality.new for modality in summary.modalities] == [0, 0]
    for modality in encoders:
        assert set(features(filled, modality)) == set(contents[modality])


def test_a_killed_run_continues(encoders, tmp_path):
    root, folder = tmp_path / "corpus", tmp_path / "cache"
    synthetic.make(root, utterances_per_session=8)
    speech = {"speech": encoders["speech"]}
    command = [
        *("extract", "--dataset", "synthetic"),
        *("--root", str(root), "--cache", str(folder), "--modalities", "speech"),
        *("--speech-encoder", encoders["speech"], "--device", "cpu"),
        *("--workers", "1", "--shard-mib", "0.001"),
    ]

    def committed() -> list[Path]:
        return [path for path in shards_now(folder) if not path.name.startswith(".")]

    with fork_server().start(MSER, *command, session=True, workers=True, quiet=True) as process:
        try:
            wait_for(lambda: len(committed()) >= 2, process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    survived = {path: when for path, when in shards(folder).items() if path in committed()}
    assert 2 <= len(survived) < 32
    assert FeatureCache(folder).entries("synthetic") == []  # no unfinished entry is visible

    done = fork_server().run(MSER, *command, "--workers", "0")  # also where it ran before
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{32 - len(survived)} new" in done.stdout

    after = shards(folder)
    assert {path: after.get(path) for path in survived} == survived
    stored = [id for path in after if not path.name.startswith(".") for id in ids_of(path)]
    assert len(stored) == len(set(stored)) == 32
    assert list(entry(folder, "speech", "synthetic").ids) == sorted(stored)

    run(root, tmp_path / "uninterrupted", speech, "synthetic", shard_mib=0.001)
    expected = features(tmp_path / "uninterrupted", "speech", "synthetic")
    for id, ours in features(folder, "speech", "synthetic").items():
        np.testing.assert_array_equal(ours, expected[id])
