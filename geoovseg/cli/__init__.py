"""The command line: every command parses, calls one library function and prints its result."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from geoovseg.cli import demo, doctor, evaluate, merge, methods, models, preview, segment, vectorize, vocabulary
from geoovseg.cli.options import Grouped
from geoovseg.cli.output import plain_warnings, talk
from geoovseg.errors import GeoOVSegError, PipeClosedError
from geoovseg.usage import package_version

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
app.command("merge")(merge.command)
app.command("demo")(demo.command)
app.command("vectorize")(vectorize.command)
app.command("evaluate")(evaluate.command)
app.command("preview")(preview.command)
app.command("methods")(methods.command)
app.command("vocabulary")(vocabulary.command)
app.add_typer(models.app, name="models")
app.command("doctor")(doctor.command)


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
    for name in ("SIGTERM", "SIGHUP"):  # of which Windows has one
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(getattr(signal, name), _terminate)
    command: Any = typer.main.get_command(app)
    try:
        with plain_warnings():
            code = command.main(standalone_mode=False)
    except GeoOVSegError as error:
        notes = getattr(error, "__notes__", ())
        if notes or not isinstance(error, PipeClosedError):
            talk("\n".join((f"error: {error}", *notes)))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        talk("interrupted; unfinished files were removed")
        sys.exit(130)
    except MemoryError:
        talk("error: out of memory; try a smaller --tile, --batch-size or --max-memory")
        sys.exit(1)
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
            talk("error: out of memory on the device; try a smaller --batch-size or --tile, or --device cpu")
            sys.exit(1)
        if not hasattr(error, "show"):
            raise
        error.show()  # a usage error found by the parser
        sys.exit(getattr(error, "exit_code", 2))
    sys.exit(code if isinstance(code, int) else 0)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Leave through every `finally`, so that nothing half-written stays."""
    sys.exit(128 + number)
