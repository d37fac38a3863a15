"""A publication without news changes no file."""

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq

from mser.cache import FeatureCache, Quarantined
from mser.tests.support.cache_entries import array, fill, path_of
from mser.tests.support.hostile_caches import content

MANIFEST = "0" * 12


def stamps(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))}


def test_the_same_publication_and_quarantine_change_nothing(tmp_path: Path) -> None:
    writer = fill(tmp_path, [{"a": array(1)}, {"b": array(2)}])
    writer.quarantine([Quarantined("c", "hash", "silent", "/home/ada/c.wav is silent")])
    before = stamps(tmp_path)
    for manifest in (MANIFEST, None):
        writer.publish(manifest)
    writer.quarantine([Quarantined("c", "hash", "silent", "/home/ben/c.wav is silent")])
    assert stamps(tmp_path) == before
    writer.quarantine([Quarantined("c", "other", "silent", "/home/ben/c.wav is silent")])
    assert writer.quarantined()["c"].content_hash == "other"


def test_an_index_by_another_version_of_arrow_is_not_written_again(tmp_path: Path) -> None:
    writer = fill(tmp_path, [{"a": array(1)}, {"b": array(2)}])
    folder = path_of(writer)
    (old,) = folder.glob("index-*.parquet")
    pq.write_table(pq.read_table(old), folder / "other", compression="gzip")
    name = f"index-{hashlib.sha256((folder / 'other').read_bytes()).hexdigest()[:12]}.parquet"
    (folder / "other").rename(folder / name)
    old.unlink()
    record = json.loads((folder / "entry.json").read_text())
    (folder / "entry.json").write_text(json.dumps({**record, "index": name}))
    before = stamps(tmp_path)
    writer.publish(MANIFEST)
    assert stamps(tmp_path) == before
    assert FeatureCache(tmp_path).open("made-up").ids[:] == ["a", "b"]


def test_another_manifest_is_news(tmp_path: Path) -> None:
    writer = fill(tmp_path, [{"a": array(1)}])
    before = content(tmp_path)
    writer.publish("1" * 12)
    assert content(tmp_path) != before
    assert FeatureCache(tmp_path).open("made-up").manifest == "1" * 12
