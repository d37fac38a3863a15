"""Reading features from an object store, through s3fs and through obstore.

The store is Ceph's RADOS gateway on this machine (see ``ceph_gateway.py``), asked directly and from
a distance of 10 and 30 ms for each request. It holds one entry of synthetic features. Measured are
batches of random utterances, opening an entry, and listing its files: by mser, with obstore
and without, and by either library alone. All methods of a round read the same ranges, and their
bytes are compared.

Run it as root with ``python benchmarks/object_store.py``.
"""

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import fsspec
import numpy as np
import obstore
from obstore.store import S3Store

from mser.benchmarks.ceph_gateway import ENVIRONMENT, ceph_gateway, distant, missing_programs
from mser.benchmarks.results import (
    Measurement,
    RunOptions,
    Table,
    main,
    quartiles,
    ratios,
    shuffled_turns,
)
from mser.benchmarks.synthetic_features import (
    DATASET,
    FRAME_BYTES,
    LAYERS,
    UtteranceLayout,
    draw_layout,
    draw_shards,
    make_entry,
)
from mser.cache import FeatureCache
from mser.cache.storage.s3_ranges import S3Ranges

BUCKET, BATCH, LAYER = "mser-benchmark", 32, 9
DELAYS = {"0 ms": 0.0, "10 ms": 0.01, "30 ms": 0.03}
BEFORE, AFTER = "mser, s3fs alone", "mser, obstore for ranges"
CONNECTIONS = 100  # of s3fs, which has 10 by default
NOTE = (
    "Milliseconds by the delay of a request; *÷* is the ratio of the first row to this one within "
    "a round, larger is faster. *Processor* is the processor time of the reading process alone, "
    "without delay; the gateway uses the same cores. Medians and quartiles, **synthetic** features."
)


class Range(NamedTuple):
    """Bytes ``start`` to ``stop - 1`` of an object."""

    key: str
    start: int
    stop: int


class Client:
    """mser's cache on a gateway, and the two libraries on the same files."""

    def __init__(self, url: str, layout: UtteranceLayout) -> None:
        self.options, self.layout = {"endpoint_url": url}, layout
        self.entry = self.opened()
        self.s3fs = fsspec.filesystem("s3", **self.options, use_listings_cache=False)
        many = {"max_pool_connections": CONNECTIONS}
        self.connected = fsspec.filesystem("s3", **self.options, config_kwargs=many)
        self.obstore = S3Store(BUCKET, endpoint=url, client_options={"allow_http": True})
        self.prefix = str(self.entry.folder).removeprefix(f"s3://{BUCKET}/")
        keys = self.list_obstore()
        self.files = [key for key in keys if key.endswith("hidden_states/c/0/0/0")]
        self.frames = np.bincount(layout.shards, layout.frames).astype(int).tolist()

    def opened(self) -> Any:
        return FeatureCache(f"s3://{BUCKET}/cache", self.options).open(DATASET)

    def ranges(self, batch: list[int], layers: list[int]) -> list[Range]:
        """Return where the utterances' layers are, utterance after utterance."""
        found = []
        for index in batch:
            shard, size = self.layout.shards[index], self.layout.frames[index] * FRAME_BYTES
            for layer in layers:
                first = layer * self.frames[shard] + self.layout.starts[index]
                start = first * FRAME_BYTES
                found.append(Range(self.files[shard], start, start + size))
        return found

    def list_s3fs(self) -> list[str]:
        files = self.s3fs.find(f"{BUCKET}/{self.prefix}")
        return sorted(file.removeprefix(f"{BUCKET}/") for file in files)

    def list_obstore(self) -> list[str]:
        listed = obstore.list(self.obstore, self.prefix)
        return sorted(file["path"] for files in listed for file in files)

    def fetch_s3fs(self, s3fs: Any, ranges: list[Range]) -> list[Any]:
        keys, starts, stops = zip(*ranges, strict=True)
        content: list[Any] = s3fs.cat_ranges([f"{BUCKET}/{key}" for key in keys], starts, stops)
        return content

    def fetch_obstore(self, ranges: list[Range]) -> list[Any]:
        """Fetch by ``get_ranges_async``, a call for each file, all at once."""
        files = list(dict.fromkeys(wanted.key for wanted in ranges))
        grouped = [[wanted for wanted in ranges if wanted.key == file] for file in files]

        async def fetch() -> list[Any]:
            calls = [
                obstore.get_ranges_async(
                    self.obstore,
                    file,
                    starts=[wanted.start for wanted in group],
                    ends=[wanted.stop for wanted in group],
                    coalesce=0,
                )
                for file, group in zip(files, grouped, strict=True)
            ]
            return await asyncio.gather(*calls)

        parts = zip(grouped, asyncio.run(fetch()), strict=True)
        content = {
            wanted: part
            for group, found in parts
            for wanted, part in zip(group, found, strict=True)
        }
        return [content[wanted] for wanted in ranges]

    def fetch_each(self, ranges: list[Range]) -> list[Any]:
        async def fetch() -> list[Any]:
            return await asyncio.gather(
                *(
                    obstore.get_range_async(self.obstore, key, start=start, end=stop)
                    for key, start, stop in ranges
                )
            )

        return asyncio.run(fetch())

    def read(self, batch: list[int], layers: list[int]) -> list[Any]:
        states: list[Any] = self.entry.read([self.layout.ids[index] for index in batch], layers)
        return states

    def open_and_read(self, batch: list[int]) -> list[Any]:
        entry = self.opened()
        states: list[Any] = entry.read([self.layout.ids[batch[0]]], [LAYER])
        return states


Work = Callable[[Client, list[int]], list[Any]]


def reading(layers: list[int]) -> dict[str, Work]:
    """Return the methods to read a batch of utterances."""
    return {
        BEFORE: lambda client, batch: without_obstore(lambda: client.read(batch, layers)),
        AFTER: lambda client, batch: client.read(batch, layers),
        "s3fs, cat_ranges": lambda c, batch: c.fetch_s3fs(c.s3fs, c.ranges(batch, layers)),
        f"s3fs, cat_ranges, {CONNECTIONS} connections": lambda c, batch: c.fetch_s3fs(
            c.connected, c.ranges(batch, layers)
        ),
        "obstore, get_ranges_async": lambda c, batch: c.fetch_obstore(c.ranges(batch, layers)),
        "obstore, get_range_async of each range": lambda c, batch: c.fetch_each(
            c.ranges(batch, layers)
        ),
    }


TASKS: dict[str, dict[str, Work]] = {
    f"{BATCH} utterances, one layer": reading([LAYER]),
    f"{BATCH} utterances, all {LAYERS} layers": reading([*range(LAYERS)]),
    "open the entry and read one layer of one utterance": {
        BEFORE: lambda client, batch: without_obstore(lambda: client.open_and_read(batch)),
        AFTER: lambda client, batch: client.open_and_read(batch),
    },
    "list the files of the entry": {
        "s3fs, find": lambda client, _: [key.encode() for key in client.list_s3fs()],
        "obstore, list": lambda client, _: [key.encode() for key in client.list_obstore()],
    },
}


def without_obstore(work: Callable[[], list[Any]]) -> list[Any]:
    with patch.object(S3Ranges, "read", return_value=None):
        return work()


def measure_task(
    methods: dict[str, Work], clients: dict[str, Client], rounds: int, utterances: int
) -> dict[str, dict[str, Any]]:
    """Return the rows of a table; the methods take turns, and must return the same bytes."""
    wall: dict[tuple[str, str], list[float]] = {}
    processor: dict[str, list[float]] = {name: [] for name in methods}
    for delay, client in clients.items():
        same: dict[int, str] = {}  # round → hash of the bytes
        for number, name in shuffled_turns([*methods], rounds + 1):
            batch = np.random.default_rng(number).permutation(utterances)[:BATCH].tolist()
            begin, used = time.perf_counter(), time.process_time()
            parts = methods[name](client, batch)
            seconds, spent = time.perf_counter() - begin, time.process_time() - used
            if same.setdefault(number, content := digest(parts)) != content:
                raise ValueError(f"{name} returned other bytes")
            if not number:
                continue  # opens connections
            wall.setdefault((name, delay), []).append(1e3 * seconds)
            if client is next(iter(clients.values())):
                processor[name].append(1e3 * spent)
    first = next(iter(methods))
    rows: dict[str, dict[str, Any]] = {}
    for name in methods:
        rows[name] = {}
        for delay in clients:
            rows[name][delay] = quartiles(wall[name, delay])
            rows[name][f"÷, {delay}"] = ratios(wall[first, delay], wall[name, delay])
        rows[name]["processor, ms"] = quartiles(processor[name])
    return rows


def digest(parts: list[Any]) -> str:
    """Return a hash of arrays or buffers, one after another."""
    found = hashlib.sha256()
    for part in parts:
        found.update(np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else part)
    return found.hexdigest()


@contextmanager
def gateways() -> Iterator[dict[str, str]]:
    """Start a gateway, and yield its URL by the delay of a request."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        url = stack.enter_context(ceph_gateway(Path(folder)))
        yield {
            name: stack.enter_context(distant(url, delay)) if delay else url
            for name, delay in DELAYS.items()
        }


def measure(options: RunOptions) -> Measurement:
    if missing := missing_programs():
        raise SystemExit(f"install {', '.join(missing)}: apt-get install ceph-mon ceph-osd radosgw")
    os.environ.update(ENVIRONMENT)
    with gateways() as urls:
        return measure_at(urls, options)


def measure_at(urls: dict[str, str], options: RunOptions) -> Measurement:
    """Write the entry through the first of the URLs, and measure it through all of them."""
    layout = draw_layout(0.1 if options.small else 0.5)
    storage = {"endpoint_url": next(iter(urls.values()))}
    fsspec.filesystem("s3", **storage).mkdir(BUCKET)
    make_entry(FeatureCache(f"s3://{BUCKET}/cache", storage), draw_shards(layout))
    clients = {name: Client(url, layout) for name, url in urls.items()}
    tables = []
    for title, methods in TASKS.items():
        rows = measure_task(methods, clients, options.rounds, len(layout.ids))
        tables.append(Table(title, rows, NOTE))
        options.log(f"{title}: {rows}")
    settings = {
        "utterances": len(layout.ids),
        "shards": layout.shards[-1] + 1,
        "megabytes": round(sum(layout.frames) * LAYERS * FRAME_BYTES / 1e6),
    }
    return Measurement(tables, settings, peers=["s3fs", "aiobotocore", "obstore"])


if __name__ == "__main__":
    main("object_store", "Reading from S3 through s3fs and obstore.", measure, (9, 2))
