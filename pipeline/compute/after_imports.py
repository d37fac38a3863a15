"""The last import of a fork server: no process that is forked searches what the server imported."""

from ..garbage import keep_what_is_there

keep_what_is_there()
