"""Serve the page of a run on this machine, in one process."""

import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from ..errors import UsageError
from .answers import Answers
from .app import LOOPBACK, application


def serve(
    run: Any,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    say: Callable[[str], None],
    **options: Any,
) -> None:
    """Serve the page of a run until the process is interrupted.

    Args:
        run: the folder of a finished run, or the run.
        host: the address to listen at; by default only this machine can reach the page.
        port: the port; 0 for any that is free.
        say: called with the address of the page.
        options: see :class:`Answers`.

    Raises:
        UsageError: it is not a finished run, its encoders are not here, or the port is in use.
    """
    try:
        listening = socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{host}:{port}: {reason}: give another --port or --host") from None
    with listening:
        app = application(Answers(run, **options), LOOPBACK if host in LOOPBACK else ("*",))
        say(f"http://{host}:{listening.getsockname()[1]}/  (Ctrl-C ends)")
        if host not in LOOPBACK:
            say("mser: note: everybody who can reach this address can use the page")
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        server.run(sockets=[listening])
