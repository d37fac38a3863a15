"""The page and its one request, as a Starlette application.

The page comes from this process alone and needs no network. Another site that is open in the same
browser can neither ask this server nor read its answers.
"""

import secrets
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import Any

from jinja2 import Environment, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ...cache import CacheError
from ..errors import PipelineError
from .answers import Answers

LARGEST_CLIP = 64 * 2**20  # bytes: half an hour of mono sound, uncompressed
LONGEST_TEXT = 2_000  # characters
_MOST_READ = 8 * 2**30  # bytes of a clip that is too large
LOOPBACK = ("127.0.0.1", "localhost")


class _RefusedError(Exception):
    """A request that is refused; the status is that of HTTP."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def application(answers: Answers, hosts: tuple[str, ...] = LOOPBACK) -> Starlette:
    """Return the application of a run.

    Args:
        answers: the predictions of the run.
        hosts: the names under which the page may be asked for; ``*`` allows all.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    text = files(__package__ or "").joinpath("page.html").read_text(encoding="utf-8")
    template = environment.from_string(text)

    async def page(_: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        html = template.render(
            nonce=nonce,
            run=str(answers.run),
            metrics=answers.metrics,
            sources=answers.sources,
            largest=LARGEST_CLIP,
            longest=LONGEST_TEXT,
        )
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "connect-src 'self'; media-src blob:; form-action 'none'; frame-ancestors 'none'; "
            "base-uri 'none'"
        )
        return HTMLResponse(html, headers={"Content-Security-Policy": policy, **_HEADERS})

    async def predicted(request: Request) -> Response:
        try:
            _require_own_page(request)
            with TemporaryDirectory(prefix="mser-") as folder:
                given = await _given(request, answers, Path(folder))
                found = await run_in_threadpool(_answer, answers, given, folder)
        except _RefusedError as error:
            return JSONResponse({"error": str(error)}, error.status, headers=_HEADERS)
        return JSONResponse(found, headers=_HEADERS)

    return Starlette(
        routes=[Route("/", page), Route("/predict", predicted, methods=["POST"])],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
        ],
    )


_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def _answer(answers: Answers, given: Mapping[str, Path | str], folder: str) -> dict[str, Any]:
    try:
        return answers.answer(given)
    except (PipelineError, CacheError) as error:
        sentence = str(error).replace(f"{folder}/", "")  # the name that the user knows
        raise _RefusedError(400, sentence) from error


def _require_own_page(request: Request) -> None:
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise _RefusedError(403, "this page takes requests from itself alone")


async def _given(request: Request, answers: Answers, folder: Path) -> dict[str, Path | str]:
    """Return source → content of a request: the clip is its body, the text in its address."""
    given: dict[str, Path | str] = {}
    text = request.query_params.get("text", "")
    if len(text) > LONGEST_TEXT:
        raise _RefusedError(413, f"the text is longer than {LONGEST_TEXT} characters: shorten it")
    if text.strip():
        given["text"] = text
    clip = folder / _file_name(request.query_params.get("name", ""))
    stated, size = int(request.headers.get("content-length") or 0), 0
    with clip.open("wb") as file:
        async for chunk in request.stream():
            size += len(chunk)
            # The rest of a large clip is read and forgotten: a client that still sends when the
            # connection is closed would not see the answer.
            if max(stated, size) <= LARGEST_CLIP:
                file.write(chunk)
            elif size > _MOST_READ:
                break
    if max(stated, size) > LARGEST_CLIP:
        raise _RefusedError(
            413, f"the clip is larger than {LARGEST_CLIP // 2**20} MiB: cut it to one utterance"
        )
    if size:
        given["audio"] = clip
    for source in given:
        if source not in answers.sources:
            raise _RefusedError(400, f"this run was trained without {source}: leave it out")
    if not given:
        raise _RefusedError(400, f"nothing is given: give {_names(answers.sources)}")
    return given


def _names(sources: tuple[str, ...]) -> str:
    words = {"audio": "a clip", "text": "a text"}
    names = [words[source] for source in sources]
    return f"{', '.join(names)} or both" if len(names) > 1 else "".join(names)


def _file_name(name: str) -> str:
    """Return a name that is safe in a folder, and that the user knows again."""
    plain = "".join(c for c in PureWindowsPath(name).name if c.isprintable() and c not in "/\\")
    return plain[-100:] if plain.strip(". ") else "clip"
