"""What cannot be read stays an error, whoever reads and however often; and whoever reads has the caller's settings."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from rasterio.env import getenv
from web import serving

from geoovseg import machine, segment
from geoovseg.errors import SceneError, UsageError, hushed
from geoovseg.network import FORBIDDEN, access
from geoovseg.rasters.open import plain_open, raster_env
from geoovseg.scene.scene import open_scene

WriteRaster = Callable[..., str]
FUNCTION = """<VRTDataset rasterXSize="64" rasterYSize="64">{bands}</VRTDataset>"""
BAND = """<VRTRasterBand dataType="Byte" band="{n}" subClass="VRTDerivedRasterBand">
<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>
<PixelFunctionCode>def f(*a, **k): pass</PixelFunctionCode>
<SimpleSource><SourceFilename relativeToVRT="1">scene.tif</SourceFilename><SourceBand>{n}</SourceBand></SimpleSource>
</VRTRasterBand>"""


@pytest.fixture
def failing(write_raster: WriteRaster, tmp_path: Path) -> str:
    """A raster that fails when it is read first, and then gives what was in memory by chance."""
    write_raster(np.full((3, 64, 64), 99, np.uint8))
    path = tmp_path / "failing.vrt"
    path.write_text(FUNCTION.format(bands="".join(BAND.format(n=n) for n in (1, 2, 3))))
    return str(path)


@pytest.mark.parametrize("scale", ["dtype", "auto"])
def test_what_cannot_be_read_is_an_error_however_often_it_is_tried(failing: str, scale: str) -> None:
    with pytest.raises(SceneError, match="cannot read rows 0..64"):
        segment(failing, "road", model="demo", scale=scale)


@pytest.mark.parametrize("method", ["segearth", "coninfer"])
def test_what_cannot_be_read_has_no_data_when_it_may_be_skipped(failing: str, method: str) -> None:
    vfm = {"vfm": "demo"} if method == "coninfer" else {}
    made = segment(failing, "road", model="demo", method=method, on_error="skip", **vfm)
    assert made.failed_windows == made.windows
    with plain_open(made.labels) as src:
        assert (src.read(1) == 255).all()


def test_a_scene_opened_anew_is_seen_as_before(write_raster: WriteRaster) -> None:
    path = write_raster(np.arange(3 * 64 * 64, dtype=np.uint16).reshape(3, 64, 64))
    with open_scene(path, bands=(3, 2, 1)) as scene:
        measured = scene.measured()
        with measured.afresh() as again:
            assert again.src is not measured.src
            assert (again.bands, again.intensity) == (measured.bands, measured.intensity)


@pytest.mark.parametrize("workers", [1, 2])
def test_threads_and_processes_read_by_the_callers_settings(
    write_raster: WriteRaster, tmp_path: Path, workers: int
) -> None:
    write_raster(np.full((3, 64, 64), 99, np.uint8))
    with serving(tmp_path) as web:
        web.wanted = {"X-Key": "secret"}
        web.tell()
        with rasterio.Env(GDAL_HTTP_HEADERS="X-Key: secret"):
            made = segment(
                f"{web.url}/scene.tif", "road", model="demo", output=tmp_path / "labels.tif", workers=workers
            )
    assert made.windows == 1


def test_threads_leave_the_filters_of_warnings_as_they_were(tmp_path: Path) -> None:
    def work(number: int) -> None:
        for _ in range(20):
            with plain_open(tmp_path / f"{number}.tif", "w", driver="GTiff", width=8, height=8, count=1, dtype="uint8"):
                pass

    before, show = list(warnings.filters), warnings.showwarning
    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (list(warnings.filters), warnings.showwarning) == (before, show)


def test_hushed_in_one_thread_waits_for_another() -> None:
    order: list[str] = []

    def second() -> None:
        with hushed():
            order.append("second")

    with hushed():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_forked_process_is_told_instead_of_waiting_for_ever(
    demo_scene: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "_THREADED", [1])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    arguments: dict[str, Any] = {"model": "demo", "output": tmp_path / "labels.tif"}
    with pytest.raises(UsageError, match="forked from one in which geoovseg had worked, and would hang"):
        segment(demo_scene, "road", **arguments)


def test_what_a_run_forbids_is_allowed_again_after_it() -> None:
    key = "GDAL_HTTP_PROXY"
    with rasterio.Env(GDAL_NUM_THREADS="1"):
        with access(offline=True), raster_env(), raster_env():
            assert {key: getenv()[key] for key in FORBIDDEN} == FORBIDDEN
            assert getenv()["GDAL_NUM_THREADS"] == "1"
        assert key not in getenv()
        assert "GDAL_CACHEMAX" not in getenv()
