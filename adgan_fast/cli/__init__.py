"""The command line, ``adgan-fast`` or ``python -m adgan_fast``. Each command has a module of its own.

What reads files (training, data) is imported when a command comes to need it: ``--help`` waits for the package alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from . import check, info

__all__ = ["app", "main"]

INTERRUPTED = 130  # as a shell says it

# Plain text: boxes and colours are for terminals that have them, and for nobody who greps.
app = typer.Typer(
    name="adgan-fast", add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
app.command()(info.info)
app.command()(check.check)


@app.callback(invoke_without_command=True)
def _begin(
    ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Anomaly scores by searching a generator (ADGAN, Deecke et al. 2018), fast."""
    if version:
        from .. import __version__

        typer.echo(__version__)
    elif ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), err=True)
        raise typer.Exit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0, 1 where what was asked failed, 2 for a user's mistake."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # else: a stand-in, as under tests
            stream.reconfigure(errors="replace")  # a stdout of ASCII alone takes a name that is not
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        status = int(app(arguments, prog_name="adgan-fast", standalone_mode=False) or 0)
        return status if status != INTERRUPTED else _failed("interrupted", status)
    except typer.TyperException as error:
        return _failed(error.format_message(), error.exit_code)
    except MemoryError as error:
        return _failed(str(error) or "out of memory", 1)
    except (KeyboardInterrupt, typer.Abort):  # outside of a command; typer makes the status of one inside
        return _failed("interrupted", INTERRUPTED)


def _failed(message: str, status: int) -> int:
    print(f"adgan-fast: error: {' '.join(message.split())}", file=sys.stderr)
    return status
