"""Two hosts fill one entry on GlusterFS; one is killed, the other loses its link for a while."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mser.cache import FeatureCache, verify
from mser.cache.shard import read_rows
from mser.cache.storage.leases import read_leases
from mser.tests.support.cache_entries import array, same_bits
from mser.tests.support.cache_processes import wait_for
from mser.tests.support.two_hosts import TwoHosts, needs_gluster

pytestmark = needs_gluster
JOBS = 40
# Does all jobs that no other process has done, as the worker of an extraction does.
WORKER = f"""
import sys, time
from mser.cache import CacheError, FeatureCache, UtteranceFeatures
from mser.cache.storage import leases
from mser.tests.support.cache_entries import array, spec

leases.DEAD_AFTER, leases.HEARTBEAT = 3.0, 0.3
writer = FeatureCache(sys.argv[1]).writer(spec(), {{}})
waiting = list(range({JOBS}))
while waiting:
    job = waiting.pop(0)
    with writer.lease(f"job-{{job}}", 0.1) as acquired:
        if not acquired:
            waiting.append(job)
        elif f"utt{{job}}" not in writer.committed(job):
            time.sleep(0.2)
            writer.write_shard(job, [UtteranceFeatures(f"utt{{job}}", "hash", array(job))])
writer.publish("0" * 12)
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[TwoHosts]:
    with TwoHosts(tmp_path).running() as running:
        yield running


def start(hosts: TwoHosts, host: str) -> "subprocess.Popen[str]":
    command = hosts.command(host, sys.executable, "-c", WORKER, str(hosts.shared / "cache"))
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def shards(hosts: TwoHosts) -> list[Path]:
    return list(hosts.brick.glob("cache/*/*/shards/[0-9]*"))


def test_a_killed_host_and_a_host_without_a_link_come_back(hosts: TwoHosts) -> None:
    killed, cut = start(hosts, "a"), start(hosts, "b")
    wait_for(lambda: len(shards(hosts)) >= 8)
    hosts.link("b", "down")
    killed.kill()
    killed.communicate()
    again = start(hosts, "a")
    time.sleep(8)  # more than a lease lasts, and than the file system waits for the server
    hosts.link("b", "up")
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    _, errors = cut.communicate(timeout=300)
    if cut.returncode:  # it may continue, or end with a sentence
        assert "CacheError: cannot " in errors
        last = start(hosts, "b")
        _, errors = last.communicate(timeout=300)
        assert last.returncode == 0, errors

    entry = FeatureCache(hosts.brick / "cache").open("made-up")
    assert list(entry.ids) == sorted(f"utt{job}" for job in range(JOBS))
    assert all(same_bits(entry[f"utt{job}"], array(job)) for job in range(JOBS))
    stored = entry.folder / "shards"
    copies = Counter(
        id for name in stored.committed() for id in read_rows(stored, name)["id"].to_pylist()
    )
    # Only the job that the cut host had begun may have been done twice, with one content.
    assert sum(copies.values()) - JOBS <= 1
    assert not verify(entry.folder).damage
    for host in ("a", "b"):
        check = "import sys; from mser.cli import main; sys.exit(main())"
        command = (sys.executable, "-c", check, "cache", "verify", "--cache")
        done = subprocess.run(
            hosts.command(host, *command, str(hosts.shared / "cache")),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert (done.returncode, "all as written" in done.stdout) == (0, True), done.stderr
    assert read_leases(entry.folder / "leases") == {}
