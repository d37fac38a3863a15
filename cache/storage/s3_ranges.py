"""Ranges of bytes from S3 through obstore, which needs a fraction of s3fs's time for each request.

obstore is optional, and only reads. s3fs does everything else, and gives obstore its endpoint, its
region and its credentials. What obstore cannot read is left to s3fs: its settings have more forms
than obstore's, and its errors are those that a user sees.
"""

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from fsspec.asyn import sync

_RETRIES: Any = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}
# A slow connection may take long, but a silent one is given up, after as long as by s3fs.
_CLIENT: Any = {"allow_http": True, "timeout": "1 day", "read_timeout": "15 seconds"}
_RENEWED = timedelta(minutes=10)  # s3fs is asked for its credentials again after half of this time


class S3Ranges:
    """Reads ranges of objects, with the settings of an s3fs file system; threads may share it."""

    inherited = False  # whether this process was forked from one that had imported obstore

    def __init__(self, fs: Any) -> None:
        self._fs = fs
        self._stores: dict[str, Any] = {}  # by bucket
        self._works: bool | None = None  # unknown until the first answer

    def read(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """Return ranges of an object, fetched in parallel; ``None`` leaves them to s3fs.

        A range that ends after the object is shorter. obstore is not asked again if its first
        answer is an error, and never in a process forked from one that has imported it: its
        threads do not survive a fork, so a read would wait forever, and then the parent's too.
        """
        if not ranges or self._works is False or self.inherited:
            return None
        bucket, key, _ = self._fs.split_path(path)
        starts, stops = zip(*ranges, strict=True)
        try:
            from obstore import get_ranges  # noqa: PLC0415 -- optional, and loads when it is needed

            parts = get_ranges(self._store(bucket), key, starts=starts, ends=stops, coalesce=0)
        except Exception:  # obstore is not installed, or s3fs finds out what is wrong
            self._works = bool(self._works)
            return None
        self._works = True
        return [bytes(part) for part in parts]

    def _store(self, bucket: str) -> Any:
        if bucket not in self._stores:
            from obstore.store import S3Store  # noqa: PLC0415 -- as above

            fs, client = self._fs, self._fs.s3.meta
            self._stores[bucket] = S3Store(
                bucket,
                endpoint=client.endpoint_url,
                region=client.region_name or "us-east-1",
                virtual_hosted_style_request=False,
                skip_signature=bool(fs.anon),
                credential_provider=None if fs.anon else lambda: sync(fs.loop, _credentials, fs),
                client_options=_CLIENT,
                retry_config=_RETRIES,
            )
        return self._stores[bucket]


async def _credentials(fs: Any) -> dict[str, Any]:
    """Return the credentials of s3fs as obstore wants them."""
    key, secret, token = fs.key, fs.secret, fs.token
    if not key:
        found = await (await fs.session.get_credentials()).get_frozen_credentials()
        key, secret, token = found.access_key, found.secret_key, found.token
    return {
        "access_key_id": key,
        "secret_access_key": secret,
        "token": token,
        "expires_at": datetime.now(UTC) + _RENEWED,
    }


def _forked() -> None:
    S3Ranges.inherited = "obstore" in sys.modules


os.register_at_fork(after_in_child=_forked)
