"""`geoovseg demo`."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer

from geoovseg.cli import options as o
from geoovseg.cli.evaluate import table
from geoovseg.cli.output import data, talk
from geoovseg.cli.progress import progress_bar
from geoovseg.errors import UsageError
from geoovseg.methods import card

LARGEST = 20_000
"""Pixels of a side of a drawn scene, which is drawn in memory."""


def command(
    folder: Annotated[Path, typer.Argument(help="Where to write; made if missing.", metavar="DIR")] = Path("demo"),
    size: Annotated[str, typer.Option(help="Width x height of the drawn scene in pixels of 0.5 m.")] = "1024x1024",
    seed: Annotated[int, typer.Option(help="Which scene to draw.", min=0)] = 1000,
    method: Annotated[str, o.of("method")] = "segearth",
    scene_only: Annotated[bool, typer.Option("--scene-only", help="Draw the scene and its ground truth only.")] = False,
    explore: Annotated[
        bool, typer.Option("--explore", help="Then look at it in the browser, and ask for words.")
    ] = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
) -> None:
    """Draw a scene, segment it, check the result.

    The scene is an aerial view with exact ground truth, the model the small one in the package: no network, no weights.
    """
    from geoovseg.demo.files import write_scene
    from geoovseg.usage import Usage

    card(method)
    watch = Usage()
    width, height = _size(size)
    talk(f"drawing scene {seed}, {width} x {height} pixels", quiet=quiet)
    with watch.stage("draw"):
        scene, truth = write_scene(folder, seed, height, width)
    result: dict[str, Any] = dict.fromkeys(("labels", "vectors", "picture", "miou"))
    if not scene_only:
        result = _segment(folder, scene, truth, method, quiet or json)
    if explore:
        _explore(scene, quiet)
        return
    paths = {"scene": scene, "truth": truth, **{k: result[k] for k in ("labels", "vectors", "picture")}}
    seconds = watch.seconds()
    if json:
        data(jsonlib.dumps({**paths, "miou": result["miou"], "seconds": seconds["total"]}))
        return
    for name, path in paths.items():
        if path:
            data(f"{name:<9}{path}")
    if result["miou"] is not None:
        data(f"{'miou':<9}{result['miou']:.4f}")
    data(f"{'seconds':<9}{seconds['total']:.1f}")


def _explore(scene: str, quiet: bool) -> None:
    """Encode the scene, and open the page."""
    from geoovseg.cli.explore import show, with_features
    from geoovseg.settings import Settings
    from geoovseg.vocabulary import read_classes

    settings = Settings(model="demo", background="none")
    show(with_features([scene], True, settings, quiet=quiet), read_classes(None, "demo"), quiet=quiet)


def _segment(folder: Path, scene: str, truth: str, method: str, quiet: bool) -> dict[str, Any]:
    from geoovseg.evaluation import evaluate
    from geoovseg.labels.preview import preview
    from geoovseg.segmenter import segment
    from geoovseg.vectors.vectorize import vectorize

    needs = card(method).needs
    with progress_bar(quiet) as progress:
        made = segment(
            scene,
            vocabulary="demo",
            method=method,
            model="demo",
            vfm="demo" if "vfm" in needs else None,
            regions="felzenszwalb" if "regions" in needs else None,
            background="none",
            overwrite=True,
            progress=progress,
        )
    figures = evaluate(made.labels, truth)
    picture = preview(scene, made.labels, folder / "demo.png").picture
    for line in table(figures):
        talk(line, quiet=quiet)
    vectors = vectorize(made.labels, folder / "scene_classes.gpkg", simplify=1, workers=0, overwrite=True).vectors
    return {"labels": made.labels, "vectors": vectors, "picture": picture, "miou": figures.miou}


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not all(side.isascii() and side.isdecimal() and 0 < int(side) <= LARGEST for side in (width, height)):
        raise UsageError(f"--size {text}: write width x height, as in 1024x1024, each at most {LARGEST}")
    return int(width), int(height)
