"""Writers check their input, can be killed, and can run at the same time."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from mser.cache import CacheError, Entry, FeatureCache, UtteranceFeatures
from mser.cache.storage.local import LocalFolder
from mser.tests.support.cache_entries import (
    DIM,
    LAYERS,
    ODD_IDS,
    array,
    fill,
    path_of,
    same_bits,
    spec,
)

# The written files --------------------------------------------------------------------------------


def test_arrays_are_stored_in_the_dtype_of_the_entry(tmp_path: Path) -> None:
    wide = np.asfortranarray(array(1).astype("float64"))
    fill(tmp_path, [{"a": wide}])
    assert same_bits(FeatureCache(tmp_path).open("made-up")["a"], array(1))


@pytest.mark.parametrize(
    "shape",
    [
        (LAYERS + 1, 2, DIM),
        (LAYERS, 2, DIM + 1),
        (LAYERS, DIM),
        (LAYERS, 2, DIM, 1),
    ],
)
def test_an_array_of_another_form_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    writer = FeatureCache(tmp_path).writer(spec(), {})
    with pytest.raises(CacheError, match="'odd'"):
        writer.write_shard(0, [UtteranceFeatures("odd", "hash", np.zeros(shape, "float16"))])
    assert writer.committed() == {}


def test_an_id_is_never_a_path(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    writer = fill(root, [{id: array(n)} for n, id in enumerate(ODD_IDS)])
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert {path.name for path in root.iterdir()} == {"made-up"}
    assert len(list((path_of(writer) / "shards").iterdir())) == len(ODD_IDS)


@pytest.mark.parametrize("encoder", ["..", "../../x", "/", "/etc/passwd", "a b\n", "ä", "", "-"])
def test_any_encoder_name_gives_one_folder(tmp_path: Path, encoder: str) -> None:
    writer = fill(tmp_path / "cache", [{"a": array(1)}], encoder=encoder)
    assert path_of(writer).parent == tmp_path / "cache" / "made-up"
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    entry = FeatureCache(tmp_path / "cache").open("made-up", encoder)
    assert entry.spec.encoder == encoder


def test_publishing_nothing_new_changes_nothing(tmp_path: Path) -> None:
    writer = fill(tmp_path, [{"a": array(1)}])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    writer.publish("0" * 12)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before
    writer.publish("1" * 12)
    assert FeatureCache(tmp_path).open("made-up").manifest == "1" * 12


def test_readers_see_a_shard_after_it_is_published(tmp_path: Path) -> None:
    writer = fill(tmp_path, [{"a": array(1)}])
    before = FeatureCache(tmp_path).open("made-up")
    writer.write_shard(1, [UtteranceFeatures("b", "hash", array(2))])
    after = FeatureCache(tmp_path).open("made-up")
    assert "b" not in before
    assert "b" not in after
    assert writer.committed() == {"a": "hash of a", "b": "hash"}
    writer.publish("0" * 12)
    assert "b" not in before
    assert same_bits(before["a"], array(1))
    assert list(FeatureCache(tmp_path).open("made-up").ids) == ["a", "b"]


def test_the_newer_copy_of_an_utterance_counts(tmp_path: Path) -> None:
    writer = FeatureCache(tmp_path).writer(spec(), {})
    for number, states in ((9, array(1, 5)), (0, array(2, 1)), (4, array(3, 2))):
        writer.write_shard(number, [UtteranceFeatures("a", f"hash {number}", states)])
    writer.publish("0" * 12)
    entry = FeatureCache(tmp_path).open("made-up")
    assert same_bits(entry["a"], array(3, 2))
    assert entry.content_hash("a") == "hash 4"
    assert writer.committed() == {"a": "hash 4"}
    assert len(entry) == 1


# Killed writers -----------------------------------------------------------------------------------


def run_python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


KILLED = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
from mser.cache import EntrySpec, FeatureCache, UtteranceFeatures

root, fields, operation, name, when = sys.argv[1:]
original = getattr(Path, operation)

def deadly(self, target):
    hit = name in str(target) and armed
    if hit and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(self, target)
    if hit:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(Path, operation, deadly)
armed = False
fields = json.loads(fields)
writer = FeatureCache(root).writer(EntrySpec(**{**fields, "layers": tuple(fields["layers"])}), {})
writer.write_shard(0, [UtteranceFeatures("a", "hash", np.ones((3, 2, 4), "float16"))])
writer.publish("0" * 12)
armed = True
writer.write_shard(1, [UtteranceFeatures("b", "hash", np.ones((3, 2, 4), "float16"))])
writer.publish("0" * 12)
"""


@pytest.mark.parametrize(
    ("operation", "name", "when", "survives"),
    [
        ("rename", "00001-", "before", False),
        ("rename", "00001-", "after", True),
        ("replace", "index-", "before", True),
        ("replace", "index-", "after", True),
        ("replace", "entry.json", "before", True),
        ("replace", "entry.json", "after", True),
    ],
)
def test_a_killed_writer_leaves_a_cache_that_opens_and_completes(
    tmp_path: Path, operation: str, name: str, when: str, survives: bool
) -> None:
    killed = run_python(KILLED, tmp_path, json.dumps(asdict(spec())), operation, name, when)
    assert killed.returncode == -9, killed.stderr
    published = (name, when) == ("entry.json", "after")
    entry = FeatureCache(tmp_path).open("made-up")
    assert list(entry.ids) == (["a", "b"] if published else ["a"])
    assert all(same_bits(entry[id], np.ones((3, 2, 4), "float16")) for id in entry.ids)

    writer = FeatureCache(tmp_path).writer(spec(), {})
    assert set(writer.committed()) == ({"a", "b"} if survives else {"a"})
    for id in {"b", "c"} - set(writer.committed()):
        writer.write_shard(2, [UtteranceFeatures(id, "hash", np.ones((3, 2, 4), "float16"))])
    writer.publish("0" * 12)
    completed = FeatureCache(tmp_path).open("made-up")
    assert list(completed.ids) == ["a", "b", "c"]
    assert [completed[id].shape for id in completed.ids] == 3 * [(3, 2, 4)]


# Many at once -------------------------------------------------------------------------------------


WRITES = """
import json, sys
import numpy as np
from mser.cache import EntrySpec, FeatureCache, UtteranceFeatures

root, fields, who = sys.argv[1:]
fields = json.loads(fields)
writer = FeatureCache(root).writer(EntrySpec(**{**fields, "layers": tuple(fields["layers"])}), {})
for number in range(12):
    states = np.full((3, 1 + number % 3, 4), number, "float16")
    writer.write_shard(number, [UtteranceFeatures(f"{who}{number}", who, states)])
    writer.publish("0" * 12)
"""


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITES, str(tmp_path), json.dumps(asdict(spec()))]
    running = [subprocess.Popen([*command, who]) for who in "xy"]
    assert [process.wait(120) for process in running] == [0, 0]
    writer = FeatureCache(tmp_path).writer(spec(), {})
    everything = {f"{who}{number}": who for who in "xy" for number in range(12)}
    assert writer.committed() == everything
    writer.publish("0" * 12)
    entry = FeatureCache(tmp_path).open("made-up")
    assert list(entry.ids) == sorted(everything)
    for id in entry.ids:
        number = int(id[1:])
        assert same_bits(entry[id], np.full((3, 1 + number % 3, 4), number, "float16"))


def publish_in_the_middle(
    monkeypatch: pytest.MonkeyPatch, then: Callable[[], object], name: str
) -> None:
    """Call ``then`` once, just before a writer gives the file ``name`` its name."""

    original = LocalFolder.write

    def interrupted(self: LocalFolder, file: str, content: bytes) -> None:
        if file == name:
            monkeypatch.setattr(LocalFolder, "write", original)
            then()
        original(self, file, content)

    monkeypatch.setattr(LocalFolder, "write", interrupted)


def test_two_writers_that_publish_at_once_leave_an_entry_with_all_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fill(tmp_path, [{"a": array(1)}])
    second = FeatureCache(tmp_path).writer(spec(), {})

    def overtake() -> None:
        second.write_shard(7, [UtteranceFeatures("b", "hash", array(2))])
        second.publish("0" * 12)

    first.write_shard(3, [UtteranceFeatures("c", "hash", array(3))])
    monkeypatch.setattr("mser.cache.writer._PATIENCE", 0.1)  # as if one of them were stuck
    publish_in_the_middle(monkeypatch, overtake, "entry.json")
    first.publish("0" * 12)
    assert list(FeatureCache(tmp_path).open("made-up").ids) == ["a", "b", "c"]


READS = """
import sys, time
from pathlib import Path
from mser.cache import FeatureCache

root, stop = Path(sys.argv[1]), Path(sys.argv[2])
opened = most = 0
while not stop.exists() or opened == 0:
    entry = FeatureCache(root).open("made-up")
    assert len(entry) >= most, "an entry lost utterances"
    most = len(entry)
    assert entry[entry.ids[-1]].shape == (3, 2, 4)
    opened += 1
    if opened == 1:
        Path(sys.argv[3]).touch()
print(opened, most)
"""


def test_a_reader_sees_no_error_while_another_process_publishes(tmp_path: Path) -> None:
    root, stop, started = tmp_path / "cache", tmp_path / "stop", tmp_path / "started"
    writer = fill(root, [{"0": array(0)}])
    command = [sys.executable, "-c", READS, str(root), str(stop), str(started)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        number = 0
        while number < 40 or not started.exists():
            assert reader.poll() is None, "the reader ended early"
            number += 1
            writer.write_shard(number, [UtteranceFeatures(str(number), "hash", array(number))])
            writer.publish("0" * 12)
        stop.touch()
        printed, _ = reader.communicate(timeout=60)
    assert reader.returncode == 0
    assert int(printed.split()[0]) > 1


def test_a_reader_opens_the_new_index_if_it_was_replaced_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = fill(tmp_path, [{"a": array(1)}])
    original = Path.read_bytes
    next_ids = ["b2", "b1"]

    def overtaking(self: Path) -> bytes:
        content = original(self)
        if self.name == "entry.json" and next_ids:
            with monkeypatch.context() as unpatched:
                unpatched.setattr(Path, "read_bytes", original)
                writer.write_shard(1, [UtteranceFeatures(next_ids.pop(), "hash", array(2))])
                writer.publish("0" * 12)
        return content

    monkeypatch.setattr(Path, "read_bytes", overtaking)
    entry = Entry(writer.folder)
    assert list(entry.ids) == ["a", "b1", "b2"]
