"""The runs that filled an entry: a JSON file each, named by the hash of its content.

The shards refer to the runs by these names.
"""

import json
from collections.abc import Mapping
from typing import Any

from .identity import digest
from .storage.folder import TEMPORARY, Folder


def write_run(entry: Folder, record: Mapping[str, Any]) -> str:
    """Store the record of a run, a JSON object, and return its name."""
    name = digest(record)
    runs = entry / "runs"
    if f"{name}.json" not in runs.names():
        runs.write(f"{name}.json", json.dumps(record, indent=2).encode() + b"\n")
    return name


def read_runs(entry: Folder) -> list[dict[str, Any]]:
    """Return the records of all runs that filled an entry, oldest first."""
    runs = entry / "runs"
    records = []
    for name in runs.names():
        if name.startswith(TEMPORARY):
            continue
        try:
            record = json.loads(runs.read(name))
        except (FileNotFoundError, ValueError, RecursionError):
            continue  # the features are usable without it
        if isinstance(record, dict):
            records.append(record)
    return sorted(records, key=lambda record: str(record.get("started", "")))
