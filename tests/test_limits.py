"""Inputs without an end: each has a size that is looked at first, and pipes are not waited for."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoovseg import prompts
from geoovseg.errors import GeoOVSegError, SceneError, UsageError, VocabularyError
from geoovseg.files import LARGEST_LIST, LARGEST_SIDE, LARGEST_TEXT
from geoovseg.rasters.open import opened
from geoovseg.scene.shapes import LARGEST_WHOLE, Choice, read_shapes, read_table
from geoovseg.vectors.info import info
from geoovseg.vocabulary import read_classes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes with names")


def _large(path: Path, size: int) -> Path:
    """A file of a size that takes no room."""
    path.touch()
    os.truncate(path, size + 1)
    return path


def _pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def test_a_list_of_classes_has_an_end(tmp_path: Path) -> None:
    for path in (_large(tmp_path / "list.txt", LARGEST_TEXT), Path("/dev/zero")):
        with pytest.raises(VocabularyError, match="larger than 4 MB, the most that is read of it"):
            read_classes(f"@{path}")
    with pytest.raises(VocabularyError, match="larger than 4 MB"):
        read_classes(None, tmp_path / "list.txt")
    with pytest.raises(VocabularyError, match="no classes"):
        read_classes(f"@{_pipe(tmp_path / 'pipe')}")


def test_a_list_from_another_program_is_read_through_a_pipe() -> None:
    reads, writes = os.pipe()
    os.write(writes, b"road\nwater: lake,river\n")
    os.close(writes)
    try:
        assert read_classes(f"@/dev/fd/{reads}").names == ("road", "water")
    finally:
        os.close(reads)


def test_sentences_have_an_end(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="larger than 4 MB"):
        prompts.templates(str(_large(tmp_path / "a.txt", LARGEST_TEXT)))
    (tmp_path / "b.txt").write_text("a {}\n" * 1001)
    with pytest.raises(VocabularyError, match="has 1001 sentences; a set of templates holds at most 1000"):
        prompts.templates(str(tmp_path / "b.txt"))
    (tmp_path / "b.txt").write_text("a {}\n" * 1000)
    assert len(prompts.templates(str(tmp_path / "b.txt"))) == 1000


def test_a_list_of_paths_has_an_end(
    geoovseg: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (_large(tmp_path / "list.txt", LARGEST_LIST), Path("/dev/zero")):
        code, _, err = geoovseg("evaluate", f"@{path}", "truth.tif")
        assert (code, "larger than 16 MB" in err) == (2, True)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a" * (LARGEST_LIST + 1))))
    code, _, err = geoovseg("segment", "-", "-c", "road", "--model", "demo")
    assert (code, "from standard input, and cannot: it is larger than 16 MB" in err) == (2, True)


@pytest.mark.parametrize("name", ["p.tif", "p.gpkg", "p.parquet", "p.geojson"])
@pytest.mark.parametrize("read", [info, lambda name: read_shapes(name, Choice())])
def test_pipes_and_devices_are_no_files_of_shapes_or_pixels(
    tmp_path: Path, name: str, read: Callable[[str], object]
) -> None:
    with pytest.raises(SceneError, match="it is a pipe or a device, not a file"):
        read(str(_pipe(tmp_path / name)))
    (tmp_path / f"zero_{name}").symlink_to("/dev/zero")
    with pytest.raises(SceneError, match="it is a pipe or a device, not a file"):
        read(str(tmp_path / f"zero_{name}"))


def test_a_scene_that_is_a_pipe_is_refused_by_commands(geoovseg: Callable[..., Any], tmp_path: Path) -> None:
    code, _, err = geoovseg("segment", _pipe(tmp_path / "p.tif"), "-c", "road", "--model", "demo")
    assert (code, "it is a pipe or a device" in err) == (4, True)


@pytest.mark.parametrize("side", ["s.tif.aux.xml", "s.aux.xml", "s.tif.vat.dbf", "s.vat.dbf", "s.tif.ovr", "s.tif.msk"])
def test_side_files_are_plain_and_of_a_size(write_raster: Callable[..., str], tmp_path: Path, side: str) -> None:
    name = write_raster(np.ones((1, 8, 8), np.uint8), "s.tif")
    path = _pipe(tmp_path / side)
    with pytest.raises(SceneError, match=f"{side}: it is a pipe"), opened(name, name):
        pass
    path.unlink()
    if side.endswith(("xml", "dbf")):
        _large(path, LARGEST_SIDE)
        with pytest.raises(SceneError, match=f"{side}: it is larger than 64 MB"), opened(name, name):
            pass


def test_tables_and_shapes_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import geopandas
    import shapely

    with pytest.raises(SceneError, match="larger than 64 MB"):
        read_table(str(_large(tmp_path / "a.dbf", LARGEST_SIDE)))
    for name in ("a.geojson", "a.parquet", "a.kml"):
        with pytest.raises(SceneError, match="larger than 1024 MB"):
            read_shapes(str(_large(tmp_path / name, LARGEST_WHOLE)), Choice())
    table = geopandas.GeoDataFrame({"n": range(5)}, geometry=[shapely.box(n, 0, n + 1, 1) for n in range(5)], crs=32632)
    table.to_file(tmp_path / "b.gpkg")
    monkeypatch.setattr("geoovseg.scene.shapes.MOST_SHAPES", 4)
    with pytest.raises(SceneError, match="more than 4 shapes, the most that are read"):
        read_shapes(str(tmp_path / "b.gpkg"), Choice())
    assert len(read_shapes(str(tmp_path / "b.gpkg"), Choice(where="n < 4"))) == 4


def test_a_card_of_composed_weights_has_an_end(tmp_path: Path) -> None:
    from geoovseg.models.cards import model_card

    _large(tmp_path / "w.json", LARGEST_TEXT)
    (tmp_path / "w.safetensors").touch()
    with pytest.raises(GeoOVSegError, match="larger than 4 MB"):
        model_card(str(tmp_path / "w.safetensors"))


def test_a_path_list_that_is_none_is_told(geoovseg: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read this list"):
        from geoovseg.cli.listing import named

        named(f"@{tmp_path / 'none.txt'}")
