"""The store formats of plug-ins."""

from typing import Any

from ..cache import FORMATS
from ..cache.formats import StoreFormat, finders
from .errors import UsageError
from .plugins import Plugins

_OWN = {store_format.suffix: name for name, store_format in FORMATS.items()}


def _accepted(value: Any, name: str) -> StoreFormat | None:
    if isinstance(value, type) and issubclass(value, StoreFormat):
        value = value()
    if not isinstance(value, StoreFormat):
        return None
    if value.suffix in _OWN:
        raise UsageError(
            f"the store {name} has the suffix '{value.suffix}' of {_OWN[value.suffix]}: give it "
            "another one"
        )
    return value


FORMAT_PLUGINS = Plugins(
    "store", "mser.formats", FORMATS, _accepted, "a subclass of StoreFormat", "--store"
)
finders.append(FORMAT_PLUGINS.add_known)
