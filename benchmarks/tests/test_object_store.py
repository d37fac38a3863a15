"""The benchmark of an object store reads the same bytes by all methods, through its proxy too."""

import threading
from socket import create_connection, create_server
from typing import Any

import pytest

from mser.benchmarks import object_store
from mser.benchmarks.ceph_gateway import distant
from mser.benchmarks.synthetic_features import draw_layout, draw_shards, make_entry
from mser.cache import FeatureCache
from mser.tests.support.object_store import ObjectStore


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Any:
    server = ObjectStore()
    for name, value in server.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    server.fs.mkdir(object_store.BUCKET)
    layout = draw_layout(0.004)
    cache = FeatureCache(f"s3://{object_store.BUCKET}/cache", server.options)
    make_entry(cache, draw_shards(layout))
    yield object_store.Client(server.options["endpoint_url"], layout)
    server.stop()


def test_all_methods_read_the_same_bytes(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "BATCH", 2)
    count = len(client.layout.ids)
    for methods in (object_store.reading([3, 9]), *list(object_store.TASKS.values())[2:]):
        rows = object_store.measure_task(methods, {"0 ms": client}, 2, count)
        assert list(rows) == list(methods)
    # A method that reads something else is an error.
    other = {
        **object_store.reading([3]),
        "other layer": object_store.reading([4])["s3fs, cat_ranges"],
    }
    with pytest.raises(ValueError, match="returned other bytes"):
        object_store.measure_task(other, {"0 ms": client}, 2, count)


def test_the_proxy_passes_on_all_bytes_in_order() -> None:
    content = bytes(range(256)) * 8000

    with create_server(("127.0.0.1", 0)) as server:

        def echo() -> None:
            for _ in range(2):  # the first connection is the proxy's own check
                connection, _address = server.accept()
                with connection:
                    while piece := connection.recv(2**16):
                        connection.sendall(piece)

        threading.Thread(target=echo, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with distant(url, 0.005) as far, create_connection(_address(far)) as asking:
            threading.Thread(target=asking.sendall, args=(content,), daemon=True).start()
            received = b""
            while len(received) < len(content):
                received += asking.recv(2**16)
    assert received == content


def _address(url: str) -> tuple[str, int]:
    return "127.0.0.1", int(url.rpartition(":")[2])
