"""What a manifest may point at that is no clip, and clips whose names mislead somebody."""

import os
import socket
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from unicodedata import normalize

from mser.tests.support.clip_fates import Fate, Refused, heard, noise
from mser.tests.support.hostile_wavs import wav, whole

Made = Iterator[tuple[str, str, Fate]]

NAMES = (
    "two words.wav",
    "./ a space before it.wav",
    "two\nlines.wav",
    "a\ttab.wav",
    "-v --strict.wav",
    "--help",
    "'single' \"double\", comma; semicolon.wav",
    normalize("NFC", "composed/Zoë, é.wav"),
    normalize("NFD", "decomposed/Zoë, é.wav"),
    "😀🏴‍☠️.wav",
    "שלום مرحبا.wav",
    "\u202egnp.vaw",  # read from right to left it is called vaw.png
    "日本語.wav",
    "%41#?&=*[a-z]{}$HOME~`|<>.wav",
    "back\\slash.wav",
    "x" * 251 + ".wav",
    "two.dots..wav",
    "CON.wav",
)
IDS = ("../../../outside", "..", "/etc/passwd", "two\r\nlines", "😀", "x" * 5000, "-v", "\u202e")


def _save(path: Path, seed: int) -> Fate:
    data, stored = whole(noise(seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(wav(data))
    return heard(stored)


def names(folder: Path) -> Made:
    """Sound clips with names and ids of all kinds."""
    for seed, name in enumerate(NAMES, start=200):
        yield f"name {name}", name, _save(folder / name, seed)
    for seed, id in enumerate(IDS, start=300):
        yield id, f"id-{seed}.wav", _save(folder / f"id-{seed}.wav", seed)


def paths(folder: Path) -> Made:
    """Ways that lead to a sound clip."""
    fate = _save(folder / "clip.wav", 400)
    (folder / "link.wav").symlink_to("clip.wav")
    (folder / "inner").mkdir()
    yield "by a link", "link.wav", fate
    yield "from the root", str(folder / "clip.wav"), fate
    yield "up and down", "inner/../clip.wav", fate


def no_files(folder: Path) -> Made:
    """What is there, if anything, is not a file that can be read."""
    (folder / "empty.wav").touch()
    (folder / "folder.wav").mkdir()
    (folder / "to-folder.wav").symlink_to("folder.wav")
    (folder / "dangling.wav").symlink_to("nothing.wav")
    (folder / "loop.wav").symlink_to("back.wav")
    (folder / "back.wav").symlink_to("loop.wav")
    os.mkfifo(folder / "pipe.wav")
    with chdir(folder), socket.socket(socket.AF_UNIX) as one:
        one.bind("socket.wav")  # a longer path would be too long for it
    with (folder / "sparse.wav").open("wb") as file:
        file.truncate(2**40)
    yield "empty", "empty.wav", Refused("empty", "holds no bytes")
    for name in ("folder", "to-folder"):
        yield name, f"{name}.wav", Refused("unreadable", f"{name}.wav is a folder, not a file")
    for name in ("nothing", "dangling"):
        yield name, f"{name}.wav", Refused("absent", f"there is no file {folder / name}.wav")
    yield "no audio", "", Refused("absent", "the corpus has no audio for this utterance")
    yield "loop", "loop.wav", Refused("unreadable", "loop.wav cannot be read: Too many levels")
    for name in ("pipe", "socket"):
        yield name, f"{name}.wav", Refused("unreadable", "is a pipe, socket or device, not a file")
    yield "device", "/dev/zero", Refused("unreadable", "is a pipe, socket or device, not a file")
    yield "sparse", "sparse.wav", Refused("too-large", "has 1024.0 GiB: cut it into utterances")
    yield "long path", "x" * 5000 + ".wav", Refused("unreadable", "cannot be read: File name too")
    yield "below a file", "empty.wav/clip.wav", Refused("unreadable", "read: Not a directory")


def make(folder: Path) -> Made:
    """The id of each, the path that a manifest gives, and what must become of it."""
    for group in (names, paths, no_files):
        yield from group(folder)
