"""Two users of a group fill, train from and clean one cache, each with an umask of their own."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mser.cache import FeatureCache, verify
from mser.tests.support.cache_entries import path_of
from mser.tests.support.fork_server import MSER, fork_server
from mser.tests.support.users import become, only_root

GROUP, ADA, BEN = 40_000, 40_001, 40_002

pytestmark = only_root


@pytest.fixture
def place(corpus_root: Path, encoders: dict[str, str]) -> Iterator[Path]:
    """A folder that every user can reach, with the corpus, an encoder and a shared cache."""
    with tempfile.TemporaryDirectory(prefix="mser-group-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        place.chmod(0o755)
        shutil.copytree(corpus_root, place / "corpus")
        shutil.copytree(encoders["text"], place / "encoder")
        for path in place.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        for user in (ADA, BEN):
            (place / str(user)).mkdir()
            os.chown(place / str(user), user, GROUP)
        (place / "cache").mkdir()
        os.chown(place / "cache", ADA, GROUP)
        yield place


def call_as(
    user: int, umask: int, place: Path, *arguments: object
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user, in the user's folder."""
    home = place / str(user)
    environment = {**os.environ, "HOME": str(home), "MSER_CACHE": str(place / "cache")}
    return fork_server().run(
        become(user, GROUP, umask) + MSER, *arguments, folder=home, environment=environment
    )


def extract(user: int, umask: int, place: Path, *options: object) -> dict[str, Any]:
    done = call_as(
        *(user, umask, place, "extract", "--dataset", "synthetic", "--root", place / "corpus"),
        *("--modalities", "text", "--text-encoder", place / "encoder", "--device", "cpu"),
        *("--workers", "0", "--shard-mib", "0.1", "--json", *options),
    )
    assert done.returncode == 0, done.stderr
    (modality,) = json.loads(done.stdout)["modalities"]
    assert isinstance(modality, dict)
    return modality


def entry_of(place: Path) -> Path:
    return path_of(FeatureCache(place / "cache").open("synthetic"))


def damage_one_shard(place: Path) -> None:
    shard = next(iter((entry_of(place) / "shards").iterdir()))
    os.truncate(shard / "hidden_states/c/0/0/0", 50)


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_two_users_fill_train_from_repair_and_clean_a_shared_cache(place: Path, umask: int) -> None:
    (place / "cache").chmod(0o2770)
    assert extract(ADA, umask, place, "--limit", "40")["new"] == 40
    assert extract(BEN, umask, place)["new"] == 96 - 40
    for user in (ADA, BEN):
        done = call_as(
            *(user, umask, place, "train-head", "--dataset", "synthetic", "--modalities", "text"),
            *("--head", "linear", "--device", "cpu", "--out", "run", "--protocol"),
            *("leave-one-session-out", "--fold", "ses01", "--set", "l2=0.1"),
        )
        assert done.returncode == 0, done.stderr
    damage_one_shard(place)
    assert call_as(BEN, umask, place, "cache", "verify", "--repair").returncode == 0
    assert extract(ADA, umask, place)["new"] > 0
    for user in (BEN, ADA):
        done = call_as(user, umask, place, "cache", "gc", "--yes", "--older-than", "0")
        assert (done.returncode, "skipped" in done.stdout) == (0, False), done.stdout
    entry = FeatureCache(place / "cache").open("synthetic")
    assert len(entry) == 96
    assert not verify(entry.folder).damage


def test_what_another_user_may_not_touch_is_skipped_and_named(place: Path) -> None:
    (place / "cache").chmod(0o755)  # not shared
    extract(ADA, 0o022, place)
    left = entry_of(place) / ".tmp-of-a-killed-writer"
    left.write_text("")
    damage_one_shard(place)
    done = call_as(BEN, 0o022, place, "cache", "gc", "--yes", "--older-than", "0")
    assert done.returncode == 0
    assert f"skipped: cannot delete {left}: Permission denied" in done.stdout
    assert left.exists()
    done = call_as(BEN, 0o022, place, "cache", "verify", "--repair")
    assert done.returncode == 1
    assert "1 damaged" in done.stdout
    assert "it cannot be repaired: cannot" in done.stdout

    # A dataset and an entry that Ben may not even list.
    private = place / "cache" / "private"
    private.mkdir(mode=0o700)
    (private / "file").touch()
    (left.parent / "shards").chmod(0o700)
    for command in (["gc"], ["verify"], ["ls"]):
        done = call_as(BEN, 0o022, place, "cache", *command)
        assert "Traceback" not in done.stderr
        assert f"{private}" in done.stdout + done.stderr, command
