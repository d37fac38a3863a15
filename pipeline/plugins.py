"""Plug-ins: heads, corpora, encoders, store formats and metrics from outside the package.

A name that a table of mser does not have is a plug-in. It is the name of an entry point of an
installed package, in a group such as ``mser.heads``; or it says where the code is, as
``file.py:Name`` or ``package.module:Name``.

The code of an installed package may run whenever its name occurs. Other code runs only if the user
names it: ``Plugins.admit`` then notes the hash of the file in :func:`known_file`. A name that a run
or a cache holds goes through ``Plugins.admit_recorded``, which runs only code that is noted there
and has not changed. So a run of somebody else never executes code that the user has not named.
"""

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .errors import UsageError, unknown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")

_SPEC = re.compile(r"(?P<place>.+\.py|[A-Za-z_]\w*(\.\w+)*):(?P<object>[A-Za-z_]\w*)")


@dataclass(frozen=True)
class Origin:
    """Where the code of a plug-in comes from."""

    spec: str
    """``/path/file.py:Name``, ``package.module:Name``, or the name of an entry point."""
    sha256: str
    """The hash of the bytes of its file, 64 hexadecimal digits."""
    distribution: str | None = None
    """Name and version of the installed package of an entry point."""

    def as_json(self) -> dict[str, str]:
        """Return it as JSON values, without what is not known."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class _Code:
    """A plug-in that was found: where it comes from, and how it is loaded."""

    origin: Origin
    load: Callable[[], object]
    reloads: bool = False
    """Whether it is loaded again when its file has changed."""


class Plugins(Generic[T]):
    """The plug-ins of one table of mser.

    Args:
        kind: what the table holds, in messages, such as ``head``.
        group: the group of entry points.
        table: name → what mser itself has; plug-ins are added to it.
        accept: takes an object and its name; returns the value for the table, or ``None`` if the
            object is not of the kind.
        wanted: what the object must be, in messages.
        option: the option of the command line that takes the name.
        short: whether the table has :func:`short_name` as the key of a plug-in, and not its spec.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        table: MutableMapping[str, T],
        accept: Callable[[Any, str], T | None],
        wanted: str,
        option: str,
        *,
        short: bool = False,
    ) -> None:
        self.kind, self.group, self.table = kind, group, table
        self.accept, self.wanted, self.option, self.short = accept, wanted, option, short
        self._origins: dict[str, Origin] = {}
        self._lock, self._complete = RLock(), False

    def admit(self, name: str) -> str:
        """Make sure that the table holds a name that the user gave; return its key in the table.

        The key is ``name`` itself, with an absolute path; or its short name, see ``short``.

        Raises:
            UsageError: there is no such name, or its code fails or is not of the kind.
        """
        with self._lock:
            if name in self.table and (self.short or name not in self._origins):
                return name
            code = self._find(name)
            if code is None:
                raise self.unknown(name)
            key = self._load(code)
            if is_spec(code.origin.spec):
                _note(self.group, code.origin)
            return key

    def admit_recorded(
        self, name: str, recorded: Mapping[str, Any] | None, where: str, option: str | None = None
    ) -> str:
        """Make sure that the table holds a name that a run or a cache holds.

        Args:
            name: the name.
            recorded: the :meth:`Origin.as_json` that was recorded with it; ``None`` if mser's own.
            where: the run or the cache, for messages.
            option: the option of the command line, if it is not that of the table.

        Raises:
            UsageError: the code is of a file that the user has not named before, or it has changed,
                or it fails.
        """
        if name in self.table and name not in self._origins:
            return name
        again = f"give it with {option or self.option} {name}"
        outside = is_spec(name)
        if outside and not _is_known(self.group, name):
            raise UsageError(
                f"{where} names the {self.kind} {name}, whose code you have not used before: read "
                f"the code, and if you trust it {again}"
            )
        code = self._find(name)
        if code is None:
            raise self.unknown(name)
        known = not outside or _is_known(self.group, name, code.origin.sha256)
        if not known or code.origin.as_json() != recorded:
            raise UsageError(
                f"{where} was made with other code than the {self.kind} {name} has now: restore "
                f"the code, or {again} to use it as it is"
            )
        return self.admit(name)

    def key(self, name: str) -> str:
        """Return the key that :meth:`admit` returned for a name."""
        place, _, item = name.rpartition(":")
        spec = f"{Path(place).expanduser().absolute()}:{item}" if place.endswith(".py") else name
        return short_name(spec) if self.short else spec

    def origin(self, name: str) -> Origin | None:
        """Return where a name of the table comes from; ``None`` if it is mser's own."""
        return self._origins.get(name) if name in self.table else None

    def installed(self) -> dict[str, "EntryPoint"]:
        """Return the entry points of installed packages by name; nothing is loaded."""
        from importlib.metadata import entry_points  # noqa: PLC0415 -- --help does not need it

        points = {point.name: point for point in entry_points(group=self.group)}
        own = self.table.keys() - self._origins.keys()
        return {name: points[name] for name in sorted(points) if name not in own}

    def names(self) -> list[str]:
        """Return the names that mser or an installed package has, and short ones, sorted."""
        own = self.table.keys() - (set() if self.short else self._origins.keys())
        return sorted({*own, *self.installed()})

    def add_installed(self) -> None:
        """Load all installed plug-ins, once."""
        with self._lock:
            if not self._complete:
                self._complete = True
                for name in self.installed():
                    self.admit(name)

    def add_known(self) -> None:
        """Load the installed plug-ins, and the code that the user has named and not changed."""
        self.add_installed()
        for name in _known_names(self.group):
            with suppress(UsageError):  # the file is gone, or fails now
                code = self._find(name)
                if code is not None and _is_known(self.group, name, code.origin.sha256):
                    self.admit(name)

    def unknown(self, name: str) -> UsageError:
        """Return the error for a name that nothing has."""
        if name.endswith(".py"):
            return UsageError(
                f"{self.kind} '{name}': name the object in the file too, as {name}:NAME"
            )
        return unknown(self.kind, name, self.names())

    def _find(self, name: str) -> _Code | None:
        """Find the code of a plug-in; nothing runs, except packages above a module."""
        points = self.installed()
        if name in points:
            return self._of_package(points[name])
        match = _SPEC.fullmatch(name)
        if match is None:
            return None
        if match["place"].endswith(".py"):
            return self._of_file(Path(match["place"]).expanduser().absolute(), match["object"])
        return self._of_module(match["place"], match["object"])

    def _of_package(self, point: "EntryPoint") -> _Code:
        distribution = f"{point.dist.name} {point.dist.version}" if point.dist else None
        sha256 = self._module_hash(point.module)
        return _Code(Origin(point.name, sha256, distribution), point.load)

    def _of_file(self, path: Path, name: str) -> _Code:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UsageError(
                f"{self.kind} '{path}:{name}': {error.strerror}: give the path of a Python file"
            ) from None
        sha256 = hashlib.sha256(content).hexdigest()
        load = partial(_object_of_file, path, content, sha256, name)
        return _Code(Origin(f"{path}:{name}", sha256), load, reloads=True)

    def _of_module(self, module: str, name: str) -> _Code:
        def load() -> object:
            return getattr(import_module(module), name)

        return _Code(Origin(f"{module}:{name}", self._module_hash(module)), load)

    def _module_hash(self, module: str) -> str:
        try:
            found = find_spec(module)
        except (ImportError, ValueError):
            found = None
        if found is None or found.origin is None or not Path(found.origin).is_file():
            raise UsageError(
                f"{self.kind} of the module '{module}': Python does not find the module: install "
                "it, or give the path of its file, as file.py:NAME"
            )
        return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()

    def _load(self, code: _Code) -> str:
        origin = code.origin
        key = short_name(origin.spec) if self.short else origin.spec
        before = self._origins.get(key) if key in self.table else None
        if key in self.table and (before is None or before.spec != origin.spec):
            raise UsageError(f"{origin.spec}: there is a {self.kind} '{key}' already: rename yours")
        if before is not None and (before == origin or not code.reloads):
            return key
        try:
            loaded = code.load()
        except Exception as error:
            raise UsageError(
                f"the {self.kind} {origin.spec} cannot be loaded ({type(error).__name__}: "
                f"{' '.join(str(error).split())}): correct its code"
            ) from error
        value = self.accept(loaded, short_name(origin.spec))
        if value is None:
            raise UsageError(f"{origin.spec} is not a {self.kind}: name {self.wanted}")
        self.table[key] = value
        self._origins[key] = origin
        return key


def short_name(name: str) -> str:
    """Return the name of a plug-in in tables and in the names of folders.

    Of ``file.py:Name`` and ``package.module:Name`` it is ``Name``; other names stay.
    """
    match = _SPEC.fullmatch(name)
    return match["object"] if match else name


def is_spec(name: str) -> bool:
    """Return whether a name says where its code is: ``file.py:Name`` or ``package.module:Name``."""
    return _SPEC.fullmatch(name) is not None


def folders_of(specs: Iterable[str]) -> set[Path]:
    """Return the folders of the files of plug-ins, which all workers must see."""
    places = {spec.rpartition(":")[0] for spec in specs if is_spec(spec)}
    return {Path(place).parent for place in places if place.endswith(".py")}


def known_file() -> Path:
    """Return the file that lists the code that the user has named: group, name and hash a line."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "mser" / "plugins.tsv"


def _object_of_file(path: Path, content: bytes, sha256: str, name: str) -> object:
    """Run a file, once for each content, and return an object of it.

    The file is a module of its own: what it imports must be installed.
    """
    module_name = f"mser_plugin_{sha256[:16]}"
    module = sys.modules.get(module_name)
    if module is None:
        module = ModuleType(module_name)
        module.__file__ = str(path)
        sys.modules[module_name] = module  # dataclasses and type hints look here
        try:
            exec(compile(content, str(path), "exec"), module.__dict__)  # noqa: S102 -- the user asked for it
        except BaseException:
            del sys.modules[module_name]
            raise
    return getattr(module, name)


def _known() -> Iterator[tuple[str, ...]]:
    with suppress(OSError, UnicodeDecodeError):
        for line in known_file().read_text(encoding="utf-8").splitlines():
            yield tuple(line.split("\t"))


def _is_known(group: str, spec: str, sha256: str | None = None) -> bool:
    """Return whether the user has named the code, with this hash or with any."""
    return any(line[:2] == (group, spec) and sha256 in (None, *line[2:]) for line in _known())


def _known_names(group: str) -> list[str]:
    return list(dict.fromkeys(line[1] for line in _known() if line[0] == group and len(line) > 1))


def _note(group: str, origin: Origin) -> None:
    if _is_known(group, origin.spec, origin.sha256) or not origin.spec.isprintable():
        return
    with suppress(OSError):  # such as a home that cannot be written: then the user names it again
        known_file().parent.mkdir(parents=True, exist_ok=True)
        with known_file().open("a", encoding="utf-8") as file:
            file.write(f"{group}\t{origin.spec}\t{origin.sha256}\n")
