"""A part of a shard that is a symbolic link is refused: it may lead to any file of this machine."""

import shutil
from pathlib import Path

import pytest

from mser.cache import DamagedError, Entry, verify
from mser.tests.support.cache_entries import FORMS, array, fill, path_of, same_bits


def parts(shard: Path) -> list[str]:
    """The shard itself, and the folders and files in it that lead to its features."""
    return ["", *(["hidden_states", "hidden_states/c/0", "hidden_states/c/0/0/0"])][
        : None if shard.is_dir() else 1
    ]


@pytest.mark.parametrize(("store", "compression"), FORMS)
def test_a_link_out_of_a_shard_is_damage(tmp_path: Path, store: str, compression: str) -> None:
    writer = fill(tmp_path / "cache", [{"a": array(1)}, {"b": array(2)}], True, store, compression)
    shards = path_of(writer) / "shards"
    name = writer.shards()[0]
    whole = tmp_path / "whole"
    shutil.copytree(shards, whole)
    for number, part in enumerate(parts(shards / name)):
        outside = tmp_path / f"outside-{number}"
        (shards / name / part).rename(outside) if part else (shards / name).rename(outside)
        (shards / name / part if part else shards / name).symlink_to(outside)
        entry = Entry(writer.folder)
        with pytest.raises(DamagedError, match="symbolic link"):
            _ = entry["a"]
        assert same_bits(entry["b"], array(2))
        (damage,) = verify(writer.folder).damage
        assert (damage.what, damage.lost) == (name, ("a",))
        shutil.rmtree(shards)
        shutil.copytree(whole, shards)
    assert same_bits(Entry(writer.folder)["a"], array(1))
