"""A signal ends a command by the signal, whatever fails after it."""

import signal

import pytest
import typer

from mser import cli
from mser.pipeline.errors import PipelineError
from mser.tests.conftest import Call


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that gets SIGTERM, and cannot publish what it has finished."""
    app = typer.Typer(cls=cli._Commands, pretty_exceptions_enable=False)

    @app.command()
    def work(signal_first: bool = False) -> None:
        try:
            if signal_first:
                signal.raise_signal(signal.SIGTERM)
        finally:
            raise PipelineError("cannot publish: the disk is full")

    @app.command()
    def other() -> None: ...

    monkeypatch.setattr(cli, "app", app)


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize(("option", "code"), [((), 1), (("--signal-first",), 128 + signal.SIGTERM)])
def test_an_error_after_a_signal_is_printed_and_the_signal_is_the_exit_code(
    call: Call, option: tuple[str, ...], code: int
) -> None:
    expected = (code, "", "mser: cannot publish: the disk is full\n")
    assert call("work", *option) == expected


@pytest.mark.usefixtures("failing")
def test_a_signal_before_the_command_begins_ends_by_the_signal(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminate = lambda *_: signal.raise_signal(signal.SIGTERM)  # noqa: E731
    monkeypatch.setattr(cli._Commands, "parse_args", terminate)
    code, out, err = call("work")
    assert (code, out) == (128 + signal.SIGTERM, "")
    assert err.startswith("mser: ended by SIGTERM")
