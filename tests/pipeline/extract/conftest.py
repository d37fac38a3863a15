"""Fixtures of the tests of extraction: an object store."""

from mser.tests.support.object_store import object_server, store

__all__ = ["object_server", "store"]
