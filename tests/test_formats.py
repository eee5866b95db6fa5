"""What docs/formats.md says of rasters of every kind is so, and their labels lie exactly on their grids."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings(f"ignore::{NotGeoreferencedWarning.__module__}.NotGeoreferencedWarning")


def _generator() -> ModuleType:
    """docs/formats.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("formats", ROOT / "docs" / "formats.py")
    assert spec is not None
    module = sys.modules["formats"] = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


formats = _generator()
PAGE = (ROOT / "docs" / "formats.md").read_text()


@pytest.mark.parametrize("case", formats.CASES, ids=lambda case: case.trait)
def test_a_raster_fares_as_the_page_says_and_its_labels_lie_on_its_grid(case, tmp_path: Path) -> None:
    seen = formats.observe(case, tmp_path)
    assert seen
    assert formats.row(case, seen) in PAGE.splitlines()
    for one in seen:
        if one.labels is None:
            assert not list(tmp_path.glob("labels*"))
            continue
        with rasterio.open(one.raster) as src, rasterio.open(one.labels) as dst:
            assert (dst.crs, dst.transform, dst.shape) == (src.crs, src.transform, src.shape)


def test_the_page_tells_of_these_rasters_and_no_others() -> None:
    rows = PAGE.removeprefix(formats.HEAD).splitlines()
    assert PAGE.startswith(formats.HEAD)
    assert [row.split(" | ")[0] for row in rows] == [f"| {case.trait}" for case in formats.CASES]
