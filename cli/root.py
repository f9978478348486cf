"""The root of the command line: `edgeprefix COMMAND …`.

Commands are entry points of the group `edgeprefix.commands`, imported only when they are called:
nothing here imports their packages, `edgeprefix --help` is quick, and a command whose extra is not
installed says what to type. Exit codes: 0 fine, 1 the job failed, 2 wrong usage.
"""

from __future__ import annotations

import difflib
import errno
import io
import logging
import os
import signal
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from edgeprefix.runtime.errors import EdgePrefixError, MissingExtraError, OutputError
from edgeprefix.runtime.version import __version__

logger = logging.getLogger(__name__)

# What each command does and which extra it needs; known here so that `--help` need not import the
# packages.
_SUMMARIES = {
    "demo": ("The whole pipeline on the embedded base: train, export, run, with a report.", "demo"),
    "train": ("Learn a prefix for a task over a frozen base.", "train"),
    "export": ("Write a base as a bundle, or a trained run as a prefix file.", "export"),
    "verify": ("Compare a bundle with torch; exit 1 when it differs.", "export"),
    "compile": ("Turn a text into a prefix file, through the bundle's own graph.", None),
    "compose": ("Put prefixes behind each other, their keys moved to their new positions.", None),
    "run": ("Generate text with a bundle and a prefix.", None),
    "score": ("Classify rows by label likelihood.", None),
    "inspect": ("Show what is in a prefix file or a bundle.", None),
    "keygen": ("Make a key pair that signs prefix files.", "sign"),
    "sign": ("Sign a prefix file, so that others can tell who made it.", "sign"),
    "bench": ("Measure a bundle on this machine: latency, throughput, memory.", None),
}


class _LazyCommands(TyperGroup):
    """A group whose commands are looked up when they are needed."""

    def list_commands(self, ctx: Any) -> list[str]:
        installed = _installed()
        return [name for name in _SUMMARIES if name in installed] + sorted(
            set(installed) - set(_SUMMARIES)
        )

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = _installed().get(cmd_name)
        if entry is None:
            return None
        if ctx.resilient_parsing or cmd_name not in ctx.meta.get(_CALLED, ()):
            # A line of `--help`
            return TyperCommand(cmd_name, help=_SUMMARIES.get(cmd_name, ("", None))[0])
        return typer.main.get_command(_load(entry))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        known = self.list_commands(ctx)
        if name not in known and not name.startswith("-"):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such command '{name}'.{hint} There are: {', '.join(known)}.")
        ctx.meta[_CALLED] = (name,)
        return super().resolve_command(ctx, args)


_CALLED = "edgeprefix.called"

app = typer.Typer(
    cls=_LazyCommands,
    name="edgeprefix",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgeprefix {__version__}")
        raise typer.Exit


@app.callback(help="Many tasks behind one language model: train, export and run prefixes.")
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Options of the root itself; all work is in the commands."""


def main() -> NoReturn:
    """Runs the command line; errors meant for users become one line on stderr and exit code 1."""
    for stream in (sys.stdout, sys.stderr):  # a terminal of few characters ends no job
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _unwind_when_ended()
    try:
        try:
            app()
        finally:
            _flush_output()
    except EdgePrefixError as error:
        _fail(str(error))
    except OSError as error:  # of a path that the user gave, and no command foresaw
        place = error.filename or ("standard output" if error.errno == errno.ENOSPC else None)
        where = "" if place is None else f"{place}: "
        _drop_output()
        _fail(f"{where}{error.strerror or error}", error)
    except UnicodeError as error:
        _fail(f"text that is no UTF-8, or holds half a character: {error}", error)
    sys.exit(0)


def _unwind_when_ended() -> None:
    """SIGTERM (an orchestrator's, `kill`'s) and SIGHUP (a closed terminal) leave through every
    `finally`, as Ctrl-C does: half-made folders are removed. What the caller ignores stays so.
    """

    def end(number: int, _: object) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)  # a second one must not cut the clearing up short
        raise SystemExit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)


def _flush_output() -> None:
    """Raises OutputError when standard output does not take what was printed (a full disk)."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        _drop_output()
    except OSError as error:
        _drop_output()
        raise OutputError(f"standard output: {error.strerror}") from error


def _drop_output() -> None:
    """Nothing more goes to a standard output that takes nothing: Python would flush once more at
    its end, and print a traceback.
    """
    if sys.stdout is not None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # until the process ends


def _fail(message: str, unforeseen: Exception | None = None) -> NoReturn:
    """Ends with one line; what no command foresaw leaves its traceback in the log (level debug)."""
    from edgeprefix.cli.terminal import printable  # rich takes a while to import

    logger.debug("unforeseen", exc_info=unforeseen)
    typer.secho(f"error: {printable(message)}", fg="red", err=True)
    sys.exit(1)


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="edgeprefix.commands")}


def _load(entry: EntryPoint) -> typer.Typer:
    """Imports a command's module. Raises MissingExtraError when a package of its extra is not
    installed.
    """
    try:
        loaded = entry.load()
    except ModuleNotFoundError as error:
        extra = _SUMMARIES.get(entry.name, ("", None))[1]
        if extra is None or (error.name or "").startswith("edgeprefix"):
            raise
        raise MissingExtraError(
            f"`edgeprefix {entry.name}` needs the package {error.name}, which is not installed; "
            f"type: pip install 'edgeprefix[{extra}]'"
        ) from error
    if not isinstance(loaded, typer.Typer):
        raise TypeError(
            f"entry point {entry.name} is {type(loaded).__name__}, expected typer.Typer"
        )
    return loaded


if __name__ == "__main__":
    main()
