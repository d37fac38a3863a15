"""The command line: the app with all commands, and its entry point."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import __version__
from .pipeline.commands import (
    cache,
    catalogue,
    demo,
    doctor,
    extract,
    figure,
    reproduce,
    runs,
    share,
    train,
)
from .pipeline.errors import PipelineError, UsageError
from .pipeline.garbage import collect_rarely, keep_what_is_there
from .pipeline.interruption import Interrupted, end_by, interrupted_by, signals_interrupt


@contextmanager
def _a_signal_ends_the_process() -> Iterator[None]:
    """End by the signal, also if the work that ends a command fails after the signal."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        cause = interrupt if isinstance(interrupt, Interrupted) else Interrupted(signal.SIGINT)
        number, sentence = cause.number, str(cause)
    except Exception as error:
        by = interrupted_by()
        reason = None if by is None or os.environ.get("MSER_DEBUG") else _sentence(error)
        if by is None or reason is None:
            raise
        number, sentence = by, reason
    else:
        return
    with suppress(OSError):  # the terminal may be closed
        sys.stderr.write(f"mser: {sentence}\n")
    end_by(number)


class _Commands(TyperGroup):
    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _a_signal_ends_the_process():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        with _a_signal_ends_the_process():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
    help="Extract hidden states of frozen encoders once; train emotion heads on them in minutes.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (demo, extract, train, reproduce, runs, share, catalogue, doctor):
    app.add_typer(group.app)
app.add_typer(figure.app, name="figure")
app.add_typer(cache.app, name="cache")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _all_commands(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    if debug:
        os.environ["MSER_DEBUG"] = "1"


def main() -> None:
    """Run the command line; an error is one sentence on standard error and an exit code.

    Ctrl-C, SIGTERM and SIGHUP end the process by the signal itself: 130, 143 and 129 in a shell.
    """
    if sys.platform == "win32":
        sys.stderr.write("mser: Windows is not supported: use Linux or macOS\n")
        sys.exit(1)
    # OpenMP's threads spin while they wait for each other. Where another program uses the core,
    # they would spin for a whole time slice at each of a small head's many small operations.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    collect_rarely()
    try:
        with signals_interrupt():
            app()
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None or os.environ.get("MSER_DEBUG"):
            raise
        sys.stderr.write(f"mser: {sentence}\n")
        sys.exit(2 if isinstance(error, UsageError) else 1)
    finally:
        keep_what_is_there()  # the system takes back all memory


def _sentence(error: Exception) -> str | None:
    """Return the message of an expected error, and ``None`` for one that is a bug."""
    from .cache import CacheError  # noqa: PLC0415 -- imports zarr, which --help does not need

    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) if isinstance(error, CacheError | PipelineError | OSError) else None
