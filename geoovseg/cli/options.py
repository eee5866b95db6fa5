"""The options that commands share. Those of a run follow from `Settings`, where each is said once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from geoovseg import numerals
from geoovseg.settings import Settings, choices
from geoovseg.settings.choice import GROUPS, Choice, option_of

ScenesArg = Annotated[
    list[str],
    typer.Argument(
        help="Georeferenced images (anything GDAL opens), folders of images, or - for a list on standard input.",
        metavar="SCENE",
    ),
]
LabelsArg = Annotated[str, typer.Argument(help="A label raster.", metavar="LABELS")]
ManyLabelsArg = Annotated[
    list[str],
    typer.Argument(help="Label rasters, folders of them, or @FILE with a path in each line.", metavar="LABELS"),
]
ClassesOpt = Annotated[
    list[str] | None,
    typer.Option(
        "-c",
        "--classes",
        help="Classes, separated by commas; a=b+c looks for the words b and c and calls them a; @FILE reads a list.",
        metavar="CLASSES",
        rich_help_panel="What",
    ),
]
MosaicOpt = Annotated[
    bool,
    typer.Option(
        "--mosaic",
        help="Treat the images as tiles of one scene: no seams, one scaling, one label raster.",
        rich_help_panel="Image",
    ),
]
StackOpt = Annotated[
    bool,
    typer.Option(
        "--stack",
        help="Treat the images as the bands of one scene, in the order red, green, blue or told by their names; of a "
        "Sentinel-2 or Landsat folder, its bands.",
        rich_help_panel="Image",
    ),
]
AssetOpt = Annotated[
    str | None,
    typer.Option(
        "--asset",
        help="Of a file of STAC items (JSON or GeoParquet), the asset that is the image, or three: red, green, blue.",
        metavar="NAME[,NAME,NAME]",
        rich_help_panel="Image",
    ),
]
StacOpt = Annotated[
    str | None,
    typer.Option(help="Also write a STAC item of each image's labels, to this folder.", metavar="DIR",
        rich_help_panel="Output",
    ),
]  # fmt: skip
PerTileOpt = Annotated[
    str | None,
    typer.Option(
        help="Of a mosaic, also write each tile's labels, to this folder.", metavar="DIR", rich_help_panel="Output"
    ),
]
DryRunOpt = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Say what the whole run would do and how long it would take; read no pixels.",
        rich_help_panel="Run",
    ),
]  # fmt: skip
JsonOpt = Annotated[bool, typer.Option("--json", help="One JSON object per line on stdout.", rich_help_panel="Output")]
ProgressOpt = Annotated[
    str,
    typer.Option(
        "--progress", help="How progress is told on standard error; json: an object a line.", metavar="auto|json",
        callback=lambda value: _progress(value), rich_help_panel="Output",
    ),
]  # fmt: skip
ProfileOpt = Annotated[
    str | None,
    typer.Option("--profile", help="Where the time went, as a Chrome trace.", metavar="FILE.json",
                 rich_help_panel="Output"),
]  # fmt: skip
QuietOpt = Annotated[
    bool, typer.Option("--quiet", help="Show only warnings and errors on standard error.", rich_help_panel="Output")
]


def _progress(value: str) -> str:
    from geoovseg.cli.progress import set_form

    return set_form(value)


NUMBERS: Mapping[Any, Callable[[str], float]] = {
    int: numerals.whole, int | None: numerals.whole, float | None: numerals.number,
}  # fmt: skip
"""How settings of these types are read."""


def of(name: str) -> Any:
    """Make an option of a setting, to annotate a parameter with."""
    known = choices()[name]
    flags = known.flags or (option_of(name),)
    more: dict[str, Any] = {"autocompletion": _completion(known)} if known.names else {}
    metavar = known.metavar
    if (read := NUMBERS.get(_types()[name])) is not None:
        more["parser"], metavar = _parser(read), metavar or ("INTEGER" if read is numerals.whole else "FLOAT")
    return typer.Option(*flags, help=known.about, metavar=metavar, rich_help_panel=known.group, **more)


def _parser(read: Callable[[str], float]) -> Callable[[str], float]:
    """Reads numbers as `numerals` does; what is infinite or none is left to the setting's own check."""

    def parse(text: str) -> float:
        if str(text).strip().lstrip("+-").lower() in ("nan", "inf", "infinity"):
            return float(text)
        try:
            return read(str(text))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    return parse


@cache
def _types() -> dict[str, Any]:
    return get_type_hints(Settings)


def _completion(known: Choice) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        assert known.names is not None
        return [name for name in known.names() if name.startswith(incomplete)]

    return complete


def taking_settings(command: Callable[..., None], without: Collection[str] = ()) -> Callable[..., None]:
    """Give a command every setting but some as an option; it gets their values by name, called with `**given`."""
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if isinstance(known.default, dict) else known.default,
            annotation=Annotated[kind, of(name)],
        )
        for name, kind, known in _settings()
        if name not in without
    ]
    by_keyword = [p for p in own if p.kind is p.KEYWORD_ONLY]
    first = [p for p in own if p.kind is not p.KEYWORD_ONLY]
    command.__signature__ = inspect.Signature([*first, *added, *by_keyword])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in (*own, *added)}
    return command


def _settings() -> list[tuple[str, Any, Choice]]:
    """Names of settings, the types that the parser reads, and what is said of them."""
    return [(name, _read_as(_types()[name], known), known) for name, known in choices().items()]


def _read_as(hint: Any, known: Choice) -> Any:
    if hint is bool or hint is int:
        return hint
    if isinstance(known.default, Mapping):
        return list[str] | None
    number = next((kind for kind in (int, float) if hint == kind | None), None)
    return number | None if number else str if known.default is not None else str | None


class Careful(TyperCommand):
    """A command that never takes an option for the value of another one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give options that may stand alone their value, and refuse others without one."""
        return super().parse_args(ctx, list(self._with_values(ctx, args)))

    def _with_values(self, ctx: Any, args: list[str]) -> Iterator[str]:
        options = {flag: param for param in self.get_params(ctx) for flag in (*param.opts, *param.secondary_opts)}
        following = iter([*args, None])
        arg = next(following)
        while arg is not None:
            yield arg
            param, value = options.get(arg), next(following)
            if arg == "--":
                yield from (text for text in (value, *following) if text is not None)
                return
            if param is None or param.param_type_name == "argument" or getattr(param, "is_flag", False):
                arg = value
                continue
            if value is None or value in options or value.startswith("--"):
                yield _alone(param, arg, value, ctx)
                arg = value
            else:
                yield value
                arg = next(following)


def _alone(param: Any, flag: str, next_one: str | None, ctx: Any) -> str:
    """The value of an option that was given none. Raises the parser's error."""
    known = choices().get(param.name)
    if known is not None and known.bare is not None:
        return known.bare
    taken = "" if next_one is None else f", and {next_one} is another option"
    taken += f"; if it is meant, write {flag}={next_one}" if taken and flag.startswith("--") else ""
    raise typer.BadParameter(f"it needs a value{taken}", ctx=ctx, param_hint=flag)


class Grouped(Careful):
    """A command whose help lists options by what they are about."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then groups of options in the order of `GROUPS`, then what belongs to none."""
        rows: dict[str, list[tuple[str, str]]] = {"Arguments": [], **{name: [] for name in GROUPS}, "Other": []}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                argument = param.param_type_name == "argument"
                rows["Arguments" if argument else getattr(param, "rich_help_panel", None) or "Other"].append(record)
        for name, records in rows.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)
