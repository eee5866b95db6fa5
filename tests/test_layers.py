"""The layout shows the data flow: imports go downwards, and each library stays where it belongs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "geoovseg"
SMALL = frozenset(
    {"errors", "files", "machine", "network", "numerals", "prompts", "signals", "trace", "usage", "vocabulary"}
)
RANKS = (
    {"cli"},
    {"demo", "explore"},
    {"pipeline"},
    {"evaluation"},
    {"vectors"},
    {"run"},
    {"settings", "tiles"},
    {"methods", "labels"},
    {"models", "scene", "features"},
    {"windows", "rasters", "ops"},
    {"small"},
)
"""From what a user sees to what everything stands on; imports go to a lower rank, or stay in the room."""
HOMES = {
    "rasterio": {
        "rasters",
        "scene",
        "windows",
        "features",
        "labels",
        "tiles",
        "run",
        "evaluation",
        "vectors",
        "demo",
        "explore",
    },
    "torch": {"ops", "models", "methods", "windows", "features", "run", "pipeline", "segmenter", "demo", "explore"},
    "typer": {"cli"},
    "tqdm": {"cli", "settings"},
    "shapely": {"scene", "vectors", "evaluation", "explore"},
    "geopandas": {"scene", "vectors", "evaluation", "explore"},
    "pyogrio": {"scene", "vectors"},
    "pyproj": {"rasters", "scene", "vectors", "evaluation"},
    "open_clip": {"models", "demo"},
    "timm": {"models"},
    "diffusers": {"models"},
    "transformers": {"models"},
    "segment_anything": {"models"},
    "skimage": {"ops", "models", "vectors"},
    "scipy": {"ops", "vectors", "evaluation"},
    "pyarrow": {"scene", "vectors"},
    "zarr": {"features"},
    "exactextract": {"vectors"},
    "starlette": {"explore"},
    "uvicorn": {"explore"},
}
ROOMS = {"small": SMALL, "pipeline": {"segmenter"}, "cli": {"__main__"}}
"""Modules of the root that stand together."""
FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def _unit(path: Path) -> str:
    return _room(path.relative_to(ROOT).parts[0].removesuffix(".py"))


def _room(name: str) -> str:
    return next((room for room, names in ROOMS.items() if name in names), name)


def _rank(unit: str) -> int:
    return next(n for n, units in enumerate(RANKS) if unit in units)


def _imports(path: Path) -> set[str]:
    """Imported module names; those for type checking only count as well."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_downwards(path: Path) -> None:
    unit = _unit(path)
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] == "geoovseg" and len(parts) > 1 and _room(parts[1]) != unit:
            assert _rank(_room(parts[1])) > _rank(unit), f"{unit} must not import {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_stay_where_they_belong(path: Path) -> None:
    for name in _imports(path):
        library = name.split(".")[0]
        if name in ("rasterio.windows.Window", "rasterio.crs.CRS"):
            continue
        deferred = _unit(path) == "cli" and path.name == "doctor.py"
        assert _unit(path) in HOMES.get(library, {_unit(path)}) or deferred, f"{path.name} must not import {name}"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["methods"], ["methods", "segearth"], ["models", "--help"], ["vocabulary", "loveda"]]
)
def test_listing_imports_neither_torch_nor_rasterio(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['geoovseg', *{arguments!r}]\n"
        "from geoovseg.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'rasterio', 'open_clip', 'geopandas', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_public_names_are_exported() -> None:
    import geoovseg

    assert geoovseg.__all__ == sorted(geoovseg.__all__)
    for name in geoovseg.__all__:
        assert getattr(geoovseg, name).__doc__
    assert callable(geoovseg.evaluate)
    with pytest.raises(AttributeError, match="no attribute 'segmnt'"):
        geoovseg.segmnt  # noqa: B018


def test_no_module_is_too_long_to_read() -> None:
    assert {p.name: n for p in FILES if (n := len(p.read_text().splitlines())) > 300} == {}
