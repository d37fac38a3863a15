"""Extraction into a cache that fails, by the command line: one sentence, and nothing is lost."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mser.cache import CacheError, EntryWriter, FeatureCache, UtteranceFeatures
from mser.cache.storage import leases
from mser.pipeline.extract import ExtractSettings, extract
from mser.tests.support.cache_entries import same_bits
from mser.tests.support.cache_processes import MINDING_FORK, check_sentence, permissions
from mser.tests.support.fork_server import MSER, fork_server


def options_of(corpus: Path, cache: Path, encoder: str) -> list[str]:
    return [
        *("extract", "--dataset", "synthetic", "--root", str(corpus), "--cache", str(cache)),
        *("--modalities", "speech", "--speech-encoder", encoder, "--device", "cpu"),
    ]


@permissions
def test_an_extraction_into_a_folder_without_permission_is_one_sentence(
    tmp_path: Path, corpus_root: Path, encoders: dict[str, str]
) -> None:
    tmp_path.chmod(0o555)
    options = options_of(corpus_root, tmp_path / "cache", encoders["speech"])
    done = fork_server().run(MINDING_FORK + MSER, *options)
    tmp_path.chmod(0o755)
    assert (done.returncode, done.stdout) == (1, "")
    (sentence,) = done.stderr.splitlines()
    check_sentence(sentence, tmp_path / "cache", "Permission denied; choose another")


def test_an_extraction_that_fills_the_disk_is_one_sentence_and_continues_later(
    tmp_path: Path, corpus_root: Path, encoders: dict[str, str]
) -> None:
    speech = {"speech": encoders["speech"]}
    part = ExtractSettings("synthetic", corpus_root, tmp_path, speech, workers=0, limit=4)
    extract(part)
    before = FeatureCache(tmp_path).open("synthetic")
    contents = {id: before[id].copy() for id in before.ids}

    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    options = options_of(corpus_root, tmp_path, encoders["speech"])
    full = fork_server().run(limited + MSER, *options, "--limit", 16, "--workers", 0)
    assert full.returncode == 1
    (sentence,) = full.stderr.splitlines()
    check_sentence(sentence, tmp_path, "File too large; make room")
    entry = FeatureCache(tmp_path).open("synthetic")
    assert all(same_bits(entry[id], states) for id, states in contents.items())

    extract(replace(part, limit=16))
    entry = FeatureCache(tmp_path).open("synthetic")
    assert len(entry) == 16
    assert all(same_bits(entry[id], states) for id, states in contents.items())


def test_a_file_system_that_disappears_during_an_extraction(
    tmp_path: Path, corpus_root: Path, encoders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, away = tmp_path / "cache", tmp_path / "away"
    speech = {"speech": encoders["speech"]}
    settings = ExtractSettings(
        "synthetic", corpus_root, root, speech, workers=0, limit=12, shard_mib=0.1
    )
    original = EntryWriter.write_shard
    written: list[int] = []

    def too_late(self: EntryWriter, number: int, utterances: Sequence[UtteranceFeatures]) -> str:
        if len(written) == 2:
            root.rename(away)
        written.append(number)
        return original(self, number, utterances)

    with monkeypatch.context() as patched:
        patched.setattr(EntryWriter, "write_shard", too_late)
        with pytest.raises(CacheError) as raised:
            extract(settings)
    check_sentence(str(raised.value), root, "still mounted?")
    assert not root.exists()
    away.rename(root)
    # This process still holds the lease that it could not release; a command would have ended.
    monkeypatch.setattr(leases, "DEAD_AFTER", 0)
    (one,) = extract(settings).modalities
    assert one.present > 0
    assert one.present + one.new == 12
    assert len(FeatureCache(root).open("synthetic")) == 12
