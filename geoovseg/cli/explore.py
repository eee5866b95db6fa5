"""`geoovseg explore`."""

from __future__ import annotations

import os
import webbrowser
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data, talk
from geoovseg.cli.progress import progress_bar
from geoovseg.errors import UsageError
from geoovseg.files import is_object, is_store
from geoovseg.network import access, is_remote
from geoovseg.settings import Settings
from geoovseg.settings.choice import bands as read_bands
from geoovseg.vocabulary import BACKGROUND, Vocabulary, read_classes

if TYPE_CHECKING:
    from geoovseg.explore.asked import Asked


def command(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="An image, labels, or features that geoovseg encode kept; several that belong together.",
            metavar="SCENE|FEATURES|LABELS...",
        ),
    ],
    classes: o.ClassesOpt = None,
    vocabulary: Annotated[str | None, o.of("vocabulary")] = None,
    background: Annotated[str, o.of("background")] = Settings().background,
    threshold: Annotated[float | None, o.of("threshold")] = None,
    templates: Annotated[str, o.of("templates")] = Settings().templates,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for what is saved; by default beside what is open.", metavar="DIR"),
    ] = None,
    method: Annotated[str, o.of("method")] = Settings().method,
    model: Annotated[str, o.of("model")] = Settings().model,
    device: Annotated[str, o.of("device")] = Settings().device,
    bands: Annotated[str | None, o.of("bands")] = None,
    scale: Annotated[str, o.of("scale")] = "auto",
    host: Annotated[str, typer.Option(help="Address to listen at; others than 127.0.0.1 let others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.", min=0, max=65535)] = 8765,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
    offline: Annotated[bool, o.of("offline")] = False,
    quiet: o.QuietOpt = False,
) -> None:
    """Look at an image and its labels in the browser, and ask its kept features for words.

    geoovseg explore scene_features.zarr -c building,road

    An image with words is encoded first, unless its features lie beside it. Ctrl-C ends it.
    """
    words = None if classes is None and vocabulary is None else read_classes(classes, vocabulary)
    if words is not None and words.places:
        raise UsageError(f"{words.places[0]}: mark examples on the map instead")
    seen = None if bands is None else read_bands("--bands", bands)
    settings = Settings(
        method=method, model=model, device=device, background="none", offline=offline, bands=seen, scale=scale
    )
    with access(offline=offline):
        found = with_features(paths, words is not None, settings, quiet=quiet)
        show(
            found,
            words,
            (background, threshold, templates),
            output,
            (host, port, not no_browser),
            settings,
            quiet=quiet,
        )


def with_features(paths: list[str], asked: bool, settings: Settings, *, quiet: bool) -> list[str]:
    """What is named, and the features of an image that lie beside it, or are made if words are asked of it."""
    from geoovseg.explore.opened import kinds_of, store_beside

    kinds = kinds_of(paths)
    scene = kinds.get("scene")
    if "features" in kinds or scene is None:
        return paths
    store = store_beside(scene)
    if is_store(store):
        talk(f"features beside it: {store}", quiet=quiet)
        return [store, *(path for path in paths if path != scene)]
    if not asked:
        return paths
    from geoovseg.segmenter import encoding
    from geoovseg.settings import Watch

    talk(f"encoding {scene}, once", quiet=quiet)
    with encoding(settings) as encode, progress_bar(quiet) as progress:
        made = encode(scene, Watch(progress, None, partial(talk, quiet=quiet)))
    return [str(made.features), *(path for path in paths if path != scene)]


def show(
    paths: list[str],
    words: Vocabulary | None,
    how: tuple[str, float | None, str] = (Settings().background, None, Settings().templates),
    output: Path | None = None,
    where: tuple[str, int, bool] = ("127.0.0.1", 0, True),
    settings: Settings | None = None,
    *,
    quiet: bool,
) -> None:
    """Open the page, and serve it until Ctrl-C.

    `how` is background, threshold and templates; `where` host, port and whether to open a browser; of `settings` bands
    and scale are the scene's.
    """
    from geoovseg.explore.guard import LOOPBACK
    from geoovseg.explore.opened import opened
    from geoovseg.explore.session import Session

    try:
        from geoovseg.explore.server import serve
    except ImportError as error:
        raise UsageError(f"explore needs more packages: pip install 'geoovseg[explore]' ({error})") from error

    background, threshold, templates = how
    host, port, browser = where
    here = is_remote(paths[0]) or is_object(paths[0])  # what is saved goes to this machine
    folder = output or Path("." if here else os.path.dirname(os.path.abspath(paths[0].rstrip("/"))))
    view = settings or Settings()
    with (
        opened(paths, bands=view.bands, scale=view.scale) as found,
        closing(Session(found, folder, templates)) as session,
    ):
        if words is not None:
            session.ask(_asked(words), background, threshold)
        if host not in LOOPBACK:
            talk(f"--host {host}: whoever gets the address with its token can look, ask and save", quiet=quiet)
        with suppress(KeyboardInterrupt):
            serve(session, host, port, partial(_ready, browser, quiet))
    talk("ended", quiet=quiet)


def _asked(words: Vocabulary) -> list[Asked]:
    from geoovseg.explore.asked import Asked

    own = [Asked(BACKGROUND, words.background, offset=words.background_offset)] if words.own_background else []
    return [*own, *(Asked(each.name, each.words, each.colour, offset=each.offset) for each in words.classes)]


def _ready(browser: bool, quiet: bool, address: str) -> None:
    data(address)
    talk("open it in a browser; Ctrl-C ends it", quiet=quiet)
    if browser:
        webbrowser.open(address)
