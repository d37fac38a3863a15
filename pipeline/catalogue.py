"""What mser has and what plug-ins add: heads, corpora, encoders, protocols and others."""

import ast
import inspect
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from importlib.resources import files
from itertools import takewhile
from typing import Any

from ..heads import HEADS
from .corpora import CORPUS_PLUGINS
from .encoders import ENCODER_PLUGINS
from .errors import UsageError, unknown
from .evaluation.numbers import NUMBER_METRICS
from .evaluation.registry import METRIC_PLUGINS, METRICS, Metric
from .evaluation.scorers import VOTE_METRICS
from .evaluation.several_labels import LABEL_METRICS
from .plugins import Plugins
from .preset_files import preset_names
from .protocols.protocols import PROTOCOLS
from .runs.reproduction import reproduction_names
from .store_formats import FORMAT_PLUGINS
from .targets import TARGETS
from .train.head_plugins import HEAD_PLUGINS
from .train.settings import TUNABLE, TrainSettings


@dataclass(frozen=True)
class Item:
    """One line: a name, what it is, and the package or file that it comes from."""

    name: str
    text: str
    origin: str = "mser"


@dataclass(frozen=True)
class Catalogue:
    """The items of a kind, or the options of one item."""

    items: tuple[Item, ...]

    def as_json(self) -> list[dict[str, str]]:
        """Return the items as JSON values."""
        return [asdict(item) for item in self.items]

    def __str__(self) -> str:
        """Return a line for each item."""
        width = max((len(item.name) for item in self.items), default=0)
        lines = []
        for item in self.items:
            origin = "" if item.origin == "mser" else f" [{item.origin}]"
            lines.append(f"{item.name:{width}}  {item.text}{origin}".rstrip())
        return "\n".join(lines)


def catalogue(kind: str, name: str | None = None) -> Catalogue:
    """Return the items of a kind: a key of :data:`KINDS`.

    With the ``name`` of a head or of an encoder without weights, return its options; the name of
    a plug-in, such as ``file.py:Class``, is loaded.

    Raises:
        UsageError: there is no such kind or name, or items of this kind have no options.
    """
    if kind not in KINDS:
        raise unknown("kind of list", kind, KINDS)
    if name is None:
        return Catalogue(tuple(KINDS[kind]()))
    if kind not in _PLUGINS:
        raise UsageError(f"mser list {kind} takes no name: leave out '{name}'")
    plugins = _PLUGINS[kind]
    key = plugins.admit(name)
    value = plugins.table[key]
    if kind in ("heads", "encoders") and isinstance(value, type):
        return Catalogue(tuple(_options(value)))
    origin = plugins.origin(key)
    return Catalogue((Item(key, _text(value), origin.spec if origin else "mser"),))


def _of(plugins: Plugins[Any], text: Callable[[Any], str]) -> Callable[[], Iterable[Item]]:
    def items() -> Iterable[Item]:
        installed = plugins.installed()
        for name in plugins.names():
            if name in installed:  # listed without running its code
                point = installed[name]
                package = f"{point.dist.name} {point.dist.version}" if point.dist else "installed"
                yield Item(name, point.value, package)
            else:
                yield Item(name, text(plugins.table[name]).removeprefix(f"{name}: "))

    return items


def _protocols() -> Iterable[Item]:
    for name, protocol in PROTOCOLS.items():
        text = inspect.getdoc(protocol.split) or ""
        yield Item(name, protocol.argument or text.partition("\n")[0])


def _files(kind: str) -> Callable[[], Iterable[Item]]:
    def items() -> Iterable[Item]:
        folder = files(__package__ or "") / kind
        for name in preset_names(kind):
            content = (folder / f"{name}.toml").read_text(encoding="utf-8")
            head = tomllib.loads(content).get("head")
            yield Item(name, _first_sentence(content) or str(head or ""))

    return items


def _first_sentence(toml: str) -> str:
    """Return the first sentence of the comment at the top of a TOML file; empty without one."""
    comment = takewhile(lambda line: line.startswith("# "), toml.splitlines())
    text = " ".join(line.removeprefix("# ") for line in comment)
    return re.split(r"(?<=[.?]) (?=[A-Z`])", text)[0]


def _reproductions() -> Iterable[Item]:
    for item in _files("ablations")():
        if item.name in reproduction_names():
            yield item


def _settings() -> Iterable[Item]:
    docs = _documented(TrainSettings)
    for setting in fields(TrainSettings):
        if setting.name in TUNABLE:
            default = None if setting.default is MISSING else setting.default
            default = [*default] if isinstance(default, tuple) else default
            text = docs[setting.name].replace("``", "")
            yield Item(setting.name, f"{default!r}: {text}")


def _targets() -> Iterable[Item]:
    for target in TARGETS.values():
        yield Item(target.name, f"{target.text} (loss: {' or '.join(target.losses)})")


def _metrics() -> Iterable[Item]:
    yield from _of(METRIC_PLUGINS, lambda metric: f"{metric.title}, of classes")()
    for text, table in _OTHER_METRICS.items():
        for name, metric in table.items():
            if name not in METRICS:
                yield Item(name, f"{metric.title}, of {text}")


def _documented(kind: type) -> dict[str, str]:
    """Return field → the text below it in the source of a class, in one line."""
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)  # noqa: S101 -- it is the source of a class
    texts = {}
    for statement, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            value = below.value if isinstance(below, ast.Expr) else None
            text = value.value if isinstance(value, ast.Constant) else ""
            texts[statement.target.id] = " ".join(str(text).split())
    return texts


def _options(kind: type) -> Iterable[Item]:
    for parameter in inspect.signature(kind).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            hint = inspect.formatannotation(parameter.annotation)
            yield Item(parameter.name, f"{parameter.default!r}: {hint}")


def _text(value: Any) -> str:
    """Return the first line of the documentation of an object, without references."""
    line = (inspect.getdoc(value) or "").partition("\n")[0].replace("``", "")
    return re.sub(r"; :\w+:.*", ".", line)


def _head_text(head: Any) -> str:
    alone = sum(other.__module__ == head.__module__ for other in HEADS.values()) == 1
    return _text(inspect.getmodule(head) if alone else head)


def _corpus_text(load: Any) -> str:
    return _text(inspect.getmodule(load))


def _encoder_text(family: Any) -> str:
    return f"{family.modality}: {_text(family)}"


_PLUGINS: Mapping[str, Plugins[Any]] = {
    "heads": HEAD_PLUGINS,
    "corpora": CORPUS_PLUGINS,
    "encoders": ENCODER_PLUGINS,
    "formats": FORMAT_PLUGINS,
    "metrics": METRIC_PLUGINS,
}
_OTHER_METRICS: Mapping[str, Mapping[str, Metric]] = {
    "votes": VOTE_METRICS,
    "labels": LABEL_METRICS,
    "attributes": NUMBER_METRICS,
}
KINDS: Mapping[str, Callable[[], Iterable[Item]]] = {
    "heads": _of(HEAD_PLUGINS, _head_text),
    "corpora": _of(CORPUS_PLUGINS, _corpus_text),
    "encoders": _of(ENCODER_PLUGINS, _encoder_text),
    "protocols": _protocols,
    "presets": _files("presets"),
    "ablations": _files("ablations"),
    "reproductions": _reproductions,
    "settings": _settings,
    "formats": _of(FORMAT_PLUGINS, _text),
    "metrics": _metrics,
    "targets": _targets,
}
"""What can be listed: name → its items."""
