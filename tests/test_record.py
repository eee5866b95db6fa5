"""What is kept of a run: its record, its journal, coordinate systems in them, and those of older versions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from geoovseg import merge, segment
from geoovseg.errors import ResumeError
from geoovseg.labels.record import VERSION, RunRecord
from geoovseg.tiles.join import as_one

GIVEN: dict[str, Any] = {"classes": "road,water", "model": "demo", "background": "none", "templates": "plain"}


@pytest.fixture
def scene(write_raster: Callable[..., str]) -> str:
    return write_raster(np.random.default_rng(0).integers(0, 255, (3, 24, 24), np.uint8), "scene.tif")


def _record(path: object) -> RunRecord:
    with rasterio.open(str(path)) as src:
        found = RunRecord.of(src)
    assert found is not None
    return found


def test_the_record_has_the_content_of_own_templates_and_no_path(scene: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("# mine\na photo of a {}.\nfrom above: {}\n")
    record = _record(segment(scene, output=tmp_path / "l.tif", **{**GIVEN, "templates": str(mine)}).labels)
    assert record.templates == "mine.txt"
    assert record.templates_sha256 == hashlib.sha256(b"a photo of a {}.\nfrom above: {}").hexdigest()
    assert str(tmp_path) not in record.to_json()


def test_the_record_has_the_number_of_threads_and_its_version(scene: str, tmp_path: Path) -> None:
    record = _record(segment(scene, output=tmp_path / "l.tif", **GIVEN).labels)
    assert tuple(record.threads) == (torch.get_num_threads(),)
    assert record.version == VERSION
    assert record.aoi is None


def test_the_record_has_a_digest_of_the_area(scene: str, tmp_path: Path) -> None:
    with rasterio.open(scene) as src:
        west, south, east, north = src.bounds
    boxes = [f"{west},{south},{east - n},{north}" for n in (2, 3)]
    first, second = (
        _record(segment(scene, output=tmp_path / f"{n}.tif", aoi=box, **GIVEN).labels) for n, box in enumerate(boxes)
    )
    assert first.aoi
    assert first.aoi != second.aoi


def test_threads_of_shards_may_differ_and_are_all_told(scene: str, tmp_path: Path) -> None:
    given = {**GIVEN, "output": tmp_path / "l.tif"}
    parts = Path(str(segment(scene, shard=(1, 1), **given).parts_dir))
    summary = next(parts.glob("part_*.json"))
    said = json.loads(summary.read_text())
    assert said["threads"] == torch.get_num_threads()
    summary.write_text(json.dumps({**said, "threads": 77}))
    assert tuple(_record(merge(parts).labels).threads) == (77,)


def test_coordinate_systems_are_told_as_wkt_2(
    scene: str, geoovseg: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    parts = Path(str(segment(scene, shard=(1, 1), output=tmp_path / "l.tif", **GIVEN).parts_dir))
    planned = json.loads(geoovseg("segment", scene, "-c", "a,b", "--model", "demo", "--dry-run", "--json")[1])
    told = [
        json.loads((parts / "run.json").read_text())["scene"]["crs"],
        planned["working_grid"]["crs"],
        Path(as_one([scene], tmp_path / "one.vrt")).read_text().partition("<SRS>")[2],
    ]
    for text in told:
        assert text.startswith("PROJCRS[")
        assert rasterio.CRS.from_wkt(text.partition("</SRS>")[0].replace("&quot;", '"')) == "EPSG:32632"


def test_a_run_of_an_older_version_goes_on(scene: str, tmp_path: Path) -> None:
    """One that told the coordinate system as WKT 1, and less in its record."""
    given = {**GIVEN, "output": tmp_path / "l.tif"}
    parts = Path(str(segment(scene, shard=(1, 1), **given).parts_dir))
    journal = parts / "run.json"
    said = json.loads(journal.read_text())
    with rasterio.open(scene) as src:
        said["scene"]["crs"] = src.crs.to_wkt()
    for key in ("templates_sha256", "aoi"):
        del said["record"][key]
    journal.write_text(json.dumps(said))
    assert segment(scene, shard=(1, 1), **given).parts_kept == 1
    said["scene"]["crs"] = rasterio.CRS.from_epsg(32633).to_wkt()
    journal.write_text(json.dumps(said))
    with pytest.raises(ResumeError, match="scene crs was"):
        segment(scene, shard=(1, 1), **given)


def test_a_mosaic_begun_by_an_older_version_keeps_its_scene(scene: str, tmp_path: Path) -> None:
    vrt = tmp_path / "one.vrt"
    as_one([scene], vrt)
    with rasterio.open(scene) as src:
        old = src.crs.to_wkt()
    text = vrt.read_text()
    before = text[: text.index("<SRS>") + 5] + old + text[text.index("</SRS>") :]
    vrt.write_text(before)
    as_one([scene], vrt)
    assert vrt.read_text() == before
    vrt.write_text(before.replace(old, rasterio.CRS.from_epsg(32633).to_wkt()))
    as_one([scene], vrt)
    assert vrt.read_text() == text


def test_records_of_older_versions_are_read() -> None:
    record = RunRecord.from_json(
        '{"classes": [["road", ["road"], "#ff0000"]], "background": [], "threshold": null}', "x.tif"
    )
    assert (record.version, record.threads, record.templates_sha256) == (1, (), "")
