"""An object store on this machine: moto's server in a thread, whose requests tests watch and fail.

It answers S3 over HTTP, so a cache uses the same client as for a real store.
"""

import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, NoReturn
from urllib.parse import parse_qs
from uuid import uuid4

import fsspec
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from mser.cache import FeatureCache

BUCKET = "mser-tests"
_ERROR = "<Error><Code>{0}</Code><Message>{1}</Message></Error>"


@dataclass
class Asked:
    """A request; after the answer, also the status and the size of the answer."""

    method: str
    path: str
    query: dict[str, str]
    range: str
    agent: str
    authorization: str
    status: str = ""
    bytes: int = 0

    @property
    def by_obstore(self) -> bool:
        """Whether obstore sent it, and not s3fs."""
        return self.agent.startswith("object_store/")

    @property
    def part(self) -> int:
        """The number of the uploaded part, or 0."""
        return int(self.query.get("partNumber", 0)) if self.method == "PUT" else 0


Fault = Callable[[Asked], str | None]


class ObjectStore:
    """The server.

    ``fault`` is called with each request before the answer. It may wait. It returns ``None``, a
    status to answer with (``503 SlowDown``), ``drop`` to close the connection, ``lose`` to carry
    out the request and then close the connection, or ``cut`` to close it in the middle of the
    answer.
    """

    ENVIRONMENT: ClassVar = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_MAX_ATTEMPTS": "2",  # each attempt waits longer than the one before
        "NO_PROXY": "127.0.0.1",
    }

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.fault: Fault | None = None
        self.most_at_once = 0
        self._at_once = 0
        self._counting, self._creating = threading.Lock(), threading.Lock()
        self._app = create_backend_app("s3")
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet
        )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.options: dict[str, Any] = {
            "endpoint_url": f"http://127.0.0.1:{self._server.server_port}"
        }
        self.root = ""

    def reset(self) -> None:
        """Give the next test an empty folder, and the bucket if it does not exist."""
        self.fault = None
        self.root = f"s3://{BUCKET}/{uuid4().hex[:8]}"
        if not self.fs.exists(BUCKET):
            self.fs.mkdir(BUCKET)
        self.forget()

    def forget(self) -> None:
        """Forget all requests so far."""
        self.asked, self.most_at_once = [], 0

    def cache(self) -> FeatureCache:
        """The cache of this test."""
        return FeatureCache(self.root, storage_options=self.options)

    @property
    def fs(self) -> Any:
        """A file system of its own, not that of the cache."""
        return fsspec.filesystem("s3", **self.options, use_listings_cache=False)

    def bytes_of(self, name: str) -> int:
        """How many bytes were fetched of files with ``name`` in their path."""
        fetched = (asked for asked in self.asked if asked.method == "GET" and name in asked.path)
        return sum(asked.bytes for asked in fetched)

    @contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """Answer with ``fault`` inside the context."""
        self.fault = fault
        try:
            yield
        finally:
            self.fault = None

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        query = {name: values[0] for name, values in _query(environ).items()}
        headers = (
            environ.get(f"HTTP_{name}", "") for name in ("RANGE", "USER_AGENT", "AUTHORIZATION")
        )
        asked = Asked(environ["REQUEST_METHOD"], environ["PATH_INFO"], query, *headers)
        with self._counting:
            self.asked.append(asked)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            fault = self.fault and self.fault(asked)
            if fault == "lose":
                self._ask(environ, lambda *_: None, asked)
            if fault in ("drop", "lose"):
                _hang_up(environ)
            if fault == "cut":
                (body,) = self._ask(environ, start_response, asked)
                return _half(body, environ)
            if fault:
                return self._refuse(environ, start_response, asked, fault)
            return self._ask(environ, start_response, asked)
        finally:
            with self._counting:
                self._at_once -= 1

    def _ask(self, environ: dict[str, Any], start_response: Any, asked: Asked) -> list[bytes]:
        answer: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            answer[:] = [status, headers]
            return lambda _: None

        # A store creates a file in one step, moto in two.
        with self._creating if environ.get("HTTP_IF_NONE_MATCH") else nullcontext():
            body = b"".join(self._app(environ, start))
        if "uploads" in asked.query and asked.method == "GET":
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            body = re.sub(rb"(?<=<Initiated>)[^<]+", now.encode(), body)
            answer[1] = [header for header in answer[1] if header[0].lower() != "content-length"]
        asked.status, asked.bytes = answer[0], len(body)
        start_response(*answer)
        return [body]

    @staticmethod
    def _refuse(
        environ: dict[str, Any], start_response: Any, asked: Asked, fault: str
    ) -> list[bytes]:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        code = fault.partition(" ")[2]
        body = b"" if asked.method == "HEAD" else _ERROR.format(code, f"injected {code}").encode()
        asked.status = fault
        start_response(fault, [("Content-Type", "application/xml")])
        return [body]


def _hang_up(environ: dict[str, Any]) -> NoReturn:
    with suppress(OSError):
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


def _half(body: bytes, environ: dict[str, Any]) -> Iterator[bytes]:
    yield body[: len(body) // 2]
    _hang_up(environ)


class _Quiet(MotoRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any, **__: Any) -> None:
        pass

    def connection_dropped(self, *_: Any, **__: Any) -> None:
        pass


def _query(environ: dict[str, Any]) -> dict[str, list[str]]:
    return parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
