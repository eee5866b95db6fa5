"""Files of polygons are whole, or they are not there."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoovseg import vectorize
from geoovseg.errors import OutputError
from geoovseg.vectors import complete, write


@pytest.fixture
def labels(write_raster: Callable[..., str]) -> str:
    codes = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4) % 3 + 1, np.ones((8, 8), np.uint8))
    return write_raster(codes[None], "labels.tif")


def _without_index(path: Path) -> None:
    with closing(sqlite3.connect(path)) as base:
        base.execute("DROP TABLE rtree_classes_geom")


def _with_half_an_index(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection as base:
        base.execute("DELETE FROM rtree_classes_geom WHERE id > 3")


def _cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


DAMAGES = [
    (".gpkg", _without_index), (".gpkg", _with_half_an_index), (".gpkg", _cut), (".fgb", _cut), (".parquet", _cut),
    (".geojson", _cut), (".geojsonl", _cut),
]  # fmt: skip


@pytest.mark.parametrize("suffix", complete._COUNTS)
def test_a_file_that_is_whole_is_taken(labels: str, tmp_path: Path, suffix: str) -> None:
    assert vectorize(labels, tmp_path / f"out{suffix}").polygons > 4


@pytest.mark.parametrize("suffix", complete._COUNTS)
def test_a_file_without_polygons_is_whole(labels: str, tmp_path: Path, suffix: str) -> None:
    assert vectorize(labels, tmp_path / f"out{suffix}", classes=[], names={9: "none"}).polygons == 0


@pytest.mark.parametrize(("suffix", "damage"), DAMAGES)
def test_what_a_full_disk_leaves_is_no_output(
    labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, damage: Callable[[Path], None]
) -> None:
    for name in ("_write", "_write_parquet"):
        usual = getattr(write, name)

        def then(*arguments: Any, usual: Callable[..., None] = usual) -> None:
            usual(*arguments)
            damage(next(each for each in arguments if isinstance(each, Path)))

        monkeypatch.setattr(write, name, then)
    with pytest.raises(OutputError, match="was not written whole"):
        vectorize(labels, tmp_path / f"out{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == ["labels.tif"]


def test_a_style_that_does_not_fit_on_the_disk_is_told(
    labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(write, "add_style", full)
    with pytest.raises(OutputError, match="database or disk is full; is the disk full"):
        vectorize(labels, tmp_path / "out.gpkg")


def test_a_writer_that_gives_up_tells_why(labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, batch: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("geoovseg.vectors.write.ParquetWriter.write_batch", full)
    with pytest.raises(OutputError, match="No space left on device"):
        vectorize(labels, tmp_path / "out.parquet")


def test_a_folder_that_cannot_be_written_to_is_told(
    labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Path, *arguments: object, **more: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refused)
    for more in ({}, {"min_area": 5.0}):
        with pytest.raises(OutputError, match="Read-only file system"):
            vectorize(labels, tmp_path / "out.gpkg", **more)
