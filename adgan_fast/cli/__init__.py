"""The command line, ``adgan-fast`` or ``python -m adgan_fast``. Each command has a module of its own.

What takes long to load, or may be missing, is imported when a command comes to need it: ``--help`` and ``info`` wait
for the package alone. The settings of training are not: they are options.

Exit status of every command: 0 done; 1 what was asked failed, the reason on stderr; 2 a mistake in the arguments;
3 done, but some images could not be read; 4 drift was found; 130 interrupted, and what is needed to go on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ..core import plan
from ..generator.look import first_line
from ..terminal import any_text
from . import calibrate, check, compare, demo, drift, export, info, maps, report, score, train

__all__ = ["app", "main"]

INTERRUPTED = 130  # as a shell says it
AGAIN = "interrupted: the same command goes on from what is finished, or begins anew where nothing is"

# Plain text: boxes and colours are for terminals that have them, and for nobody who greps.
app = typer.Typer(
    name="adgan-fast", add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
app.command()(train.train)
app.command()(calibrate.calibrate)
app.command()(score.score)
app.command()(export.export)
app.command()(drift.drift)
app.command()(report.report)
app.command()(maps.maps)
app.command()(compare.compare)
app.command()(check.check)
app.command()(info.info)
app.command("demo")(demo.run)


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
    """Runs a command; returns the exit status, see above."""
    with any_text("replace"):
        return _main(list(sys.argv[1:] if argv is None else argv))


def _main(arguments: list[str]) -> int:
    try:
        status = int(app(arguments, prog_name="adgan-fast", standalone_mode=False) or 0)
        return status if status != INTERRUPTED else _failed(AGAIN, status)
    except typer.TyperException as error:
        return _failed(error.format_message(), error.exit_code)
    except (MemoryError, RuntimeError) as error:
        if not plan.out_of_memory(error):
            raise
        return _failed(first_line(error) or "out of memory", 1)
    except ImportError as error:
        if type(error) is not ImportError:  # a ModuleNotFoundError, of the user's own code perhaps, keeps its traceback
            raise
        return _failed(str(error), 1)  # raised by this package: with the remedy
    except (KeyboardInterrupt, typer.Abort):  # outside of a command; typer makes the status of one inside
        return _failed(AGAIN, INTERRUPTED)


def _failed(message: str, status: int) -> int:
    print(f"adgan-fast: error: {' '.join(message.split())}", file=sys.stderr)
    return status
