"""The command line: every command parses, calls one library function and prints its result."""

from __future__ import annotations

import json
import signal
import sys
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from geoovseg.cli import (
    apply,
    benchmark,
    demo,
    doctor,
    encode,
    evaluate,
    explore,
    info,
    merge,
    methods,
    models,
    preview,
    report,
    sample,
    segment,
    stats,
    tune,
    vectorize,
    vocabulary,
)
from geoovseg.cli.options import Careful, Grouped
from geoovseg.cli.output import data, plain_warnings, talk
from geoovseg.errors import GeoOVSegError, NobodyListensError, PipeClosedError, printable
from geoovseg.machine import make_ours
from geoovseg.network import access
from geoovseg.usage import package_version

STOPPED, INTERRUPTED = (129, 143), 130
"""Exit codes when a signal ends a command: that of SIGHUP and SIGTERM, and that of SIGINT."""
app = typer.Typer(
    name="geoovseg",
    help="Open-vocabulary segmentation of geospatial rasters: a georeferenced image and a list of words in, a label "
    "raster out.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("segment", cls=Grouped)(segment.command)
app.command("encode", cls=Grouped)(encode.command)
app.command("merge", cls=Careful)(merge.command)
app.command("demo", cls=Careful)(demo.command)
app.command("vectorize", cls=Careful)(vectorize.command)
app.command("evaluate", cls=Careful)(evaluate.command)
app.command("benchmark", cls=Careful)(benchmark.command)
app.command("sample", cls=Careful)(sample.command)
app.command("stats", cls=Careful)(stats.command)
app.command("preview", cls=Careful)(preview.command)
app.command("explore", cls=Careful)(explore.command)
app.command("tune", cls=Careful)(tune.command)
app.command("report", cls=Careful)(report.command)
app.command("apply", cls=Careful)(apply.command)
app.command("info", cls=Careful)(info.command)
app.command("methods", cls=Careful)(methods.command)
app.command("vocabulary", cls=Careful)(vocabulary.command)
app.add_typer(models.app, name="models")
app.command("doctor", cls=Careful)(doctor.command)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"geoovseg {package_version('geoovseg')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Run the command line; errors a user can cause become one message and an exit code."""
    make_ours()
    for name in ("SIGTERM", "SIGHUP"):  # of which Windows has one
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(getattr(signal, name), _terminate)
    command: Any = typer.main.get_command(app)
    try:
        with plain_warnings(), access():
            code = command.main(standalone_mode=False)
        if code == INTERRUPTED:  # what typer makes of an interrupt
            raise KeyboardInterrupt
    except SystemExit as stop:
        if stop.code not in STOPPED:
            raise
        sys.exit(_told(stop))
    except (Exception, KeyboardInterrupt) as error:
        sys.exit(_told(error))
    sys.exit(code if isinstance(code, int) else 0)


def _told(error: BaseException) -> int:
    """Tell an error, with --json also as an object; returns the exit code. Raises what is no user's error as it is."""
    found = _cause(error)
    text, code = found or (f"{type(error).__name__}: {error}", 1)
    if "--json" in sys.argv[1:] and not isinstance(error, NobodyListensError):
        scene = {} if (name := getattr(error, "scene", None)) is None else {"scene": name}
        data(json.dumps({**scene, "error": text, "exit_code": code}, ensure_ascii=False))
    if found is None:
        raise error
    notes = getattr(error, "__notes__", ())
    if isinstance(error, PipeClosedError) and not notes:
        return code  # who reads no more need not be told
    if hasattr(error, "show"):
        vars(error)["message"] = printable(str(getattr(error, "message", "")))
        error.show()  # a usage error found by the parser, after how to use the command
    else:
        interrupt = isinstance(error, KeyboardInterrupt | SystemExit | typer.Abort)
        for line in (text,) if interrupt else (f"error: {text}", *notes):
            talk(line)
    return code


def _cause(error: BaseException) -> tuple[str, int] | None:
    """What to say of an error, and the exit code; none for what is no user's error."""
    if isinstance(error, GeoOVSegError):
        return str(error), error.exit_code
    if isinstance(error, SystemExit):
        return "terminated; unfinished files were removed", int(error.code or 0)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "interrupted; unfinished files were removed", INTERRUPTED
    if isinstance(error, MemoryError):
        return "out of memory; try a smaller --tile, --batch-size or --max-memory", 1
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
        return "out of memory on the device; try a smaller --batch-size or --tile, or --device cpu", 1
    if hasattr(error, "format_message"):
        return str(error.format_message()), int(getattr(error, "exit_code", 2))
    return None


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Leave through every `finally`, so that nothing half-written stays."""
    sys.exit(128 + number)
