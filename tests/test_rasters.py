"""Every raster of a folder is either segmented onto exactly its own grid, or refused in one message.

The folder is $GEOOVSEG_RASTERS, else that of the shared test data.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from conftest import SHARED
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from geoovseg.errors import SceneError, hushed
from geoovseg.labels import write
from geoovseg.rasters import cog
from geoovseg.run.predictor import Predictor
from geoovseg.scene.scene import open_scene
from geoovseg.segmenter import segment
from geoovseg.windows.batch import TileBatch

FOLDER = Path(os.environ.get("GEOOVSEG_RASTERS", SHARED / "rasters"))
HUGE = 50_000_000
FILES = sorted(p for p in FOLDER.glob("*") if p.suffix.lower() in (".tif", ".tiff", ".vrt"))
pytestmark = pytest.mark.filterwarnings(f"ignore::{NotGeoreferencedWarning.__module__}.NotGeoreferencedWarning")


def _without_data(src: Any, path: Path) -> np.ndarray:
    """Pixels that are transparent, masked, or nodata in all three bands, each read on its own."""
    with open_scene(path) as scene:
        bands = list(scene.bands)
    without = np.zeros(src.shape, bool)
    if src.nodata is not None:
        without |= (src.read(bands) == src.nodata).all(axis=0)
    if np.issubdtype(np.dtype(src.dtypes[bands[0] - 1]), np.floating):
        without |= ~np.isfinite(src.read(bands)).all(axis=0)
    for band in (n for n, kind in enumerate(src.colorinterp, start=1) if kind == ColorInterp.alpha):
        without |= src.read(band) == 0
    if src.mask_flag_enums[bands[0] - 1] == [MaskFlags.per_dataset]:
        without |= src.read_masks(bands[0]) == 0
    return without


def _pixels(path: Path) -> int:
    try:
        with rasterio.open(path) as src:
            return src.width * src.height
    except rasterio.errors.RasterioError:
        return 0


def _plain(path: Path) -> bool:
    """Whether rasterio finds nothing amiss: it reads all, on a grid somewhere, in bands among which is no choice."""
    try:
        with rasterio.open(path) as src:
            src.read()
            grid = not src.transform.is_degenerate and not src.gcps[0] and src.rpcs is None
            return (
                grid
                and src.crs is not None
                and src.count in (1, 3, 4)
                and not any("complex" in kind for kind in src.dtypes)
            )
    except (rasterio.errors.RasterioError, CPLE_BaseError):
        return False


def _first_class(job: Predictor, batch: TileBatch) -> torch.Tensor:
    """Every patch is the first word, without a model."""
    cell = job.facts.needs.cell
    grid = (side // cell for side in batch.pixels.shape[-2:])
    return job.text[0][:, None, None].expand(len(batch), -1, *grid)


def _check_huge(path: Path, labels: str) -> None:
    """What can be looked at without reading all of it: the corners, and places along the diagonal."""
    with rasterio.open(path) as src, rasterio.open(labels) as dst:
        assert (dst.crs, dst.transform, dst.shape, dst.nodata) == (src.crs, src.transform, src.shape, 255)
        last = src.height - 50, src.width - 50
        places = [(last[0] * n // 5, last[1] * m // 5) for n in range(6) for m in {0, n, 5}]
        for row, col in places:
            place = Window(col, row, 50, 50)
            np.testing.assert_array_equal(dst.read(1, window=place) == 255, src.read_masks(1, window=place) == 0)


def _write_sparse(copy: Path, empty: Path, pieces: Any, *, overviews: str, block: int) -> None:
    """The same pixels and the same grid as those of a COG, in half the time: what holds nothing is left out."""
    cog._fill(empty, pieces, source := empty.with_suffix(".vrt"))
    layout = {"driver": "GTiff", "tiled": "YES", "compress": "DEFLATE", "sparse_ok": "TRUE", "bigtiff": "IF_SAFER"}
    rasterio.shutil.copy(source, copy, **layout)


def _huge(path: Path) -> Any:
    """Billions of pixels take half a minute: `make trials` tries them, which `.ci/run` does."""
    with hushed(NotGeoreferencedWarning):
        return pytest.param(path, marks=pytest.mark.trial) if _pixels(path) > HUGE else path


@pytest.mark.skipif(not FILES, reason=f"no rasters in {FOLDER}: the shared test data is not beside this checkout")
@pytest.mark.parametrize("path", list(map(_huge, FILES)), ids=lambda p: p.name)
def test_a_raster_is_segmented_on_its_grid_or_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"stride": 112}
    if _pixels(path) > 4e6:  # too many for a model: every pixel is of the first class, or of none
        given = {"tile": 448, "stride": 448, "background": "none"}
        monkeypatch.setattr(Predictor, "vectors", _first_class)
        monkeypatch.setitem(cog.COG, "overviews", "NONE")  # they take most of the time, and say nothing of the grid
    if _pixels(path) > 1e9:
        monkeypatch.setattr(write, "write_cog", _write_sparse)
    refusal = None
    try:
        result = segment(path, "road,water", model="demo", output=tmp_path / "labels.tif", **given)
    except SceneError as error:
        refusal = error
    if refusal is not None:
        assert refusal.exit_code == 4
        assert path.name in str(refusal)
        assert "\n" not in str(refusal)
        assert not _plain(path), refusal
        assert list(tmp_path.iterdir()) == []
        return
    if _pixels(path) > 1e9:
        _check_huge(path, result.labels)
        return
    with rasterio.open(path) as src, rasterio.open(result.labels) as dst:
        assert (dst.crs, dst.transform, dst.shape) == (src.crs, src.transform, src.shape)
        assert dst.nodata == 255
        np.testing.assert_array_equal(dst.read(1) == 255, _without_data(src, path))
