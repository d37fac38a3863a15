"""A worker returns its leases when it closes, and not before."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from distributed import LocalCluster

from mser.pipeline.compute import worker_end
from mser.pipeline.compute.worker_end import return_leases_at_the_end


def test_jobs_that_begin_at_once_return_no_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    returned: list[dict[str, Any]] = []
    monkeypatch.setattr(worker_end, "return_leases", lambda **given: returned.append(given))
    threads = 8
    together = threading.Barrier(threads)

    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        (worker,) = cluster.workers.values()

        def begin(_: int) -> None:
            together.wait(60)
            return_leases_at_the_end(worker)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(begin, range(threads)))
        assert returned == []
    assert returned == [{"refuse": False}]  # the process is not the worker's
