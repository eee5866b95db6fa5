"""Bands as satellites name them: by numbers, by wavelengths, by words; and what is in doubt is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import TRANSFORM

from geoovseg.errors import GeoOVSegWarning, SceneError, UsageError
from geoovseg.rasters.band_names import code_of, colour_of, wavelength_of
from geoovseg.scene.scene import open_scene

Run = Callable[..., tuple[int, str, str]]
Make = Callable[..., str]
SENTINEL = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a raster whose bands have these names; returns where it is."""

    def make(names: Sequence[str], name: str = "scene.tif", tags: dict[str, str] | None = None, **more: Any) -> str:
        profile = {"driver": "GTiff", "dtype": "uint16", "crs": "EPSG:32632", "transform": TRANSFORM, **more}
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(path, "w", count=len(names), height=16, width=16, **profile) as dst:
            for n, text in enumerate(names, start=1):
                dst.write(np.full((16, 16), n * 10, profile["dtype"]), n)
                if text:
                    dst.set_band_description(n, text)
            dst.update_tags(**(tags or {}))
        return str(path)

    return make


def _seen(path: str, **given: Any) -> tuple[tuple[int, ...], list[str]]:
    """The bands that are seen as red, green, blue, and what is said of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GeoOVSegWarning)
        with open_scene(path, **given) as scene:
            return scene.bands, [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (["B02", "B03", "B04", "B08"], (3, 2, 1)),
        (["B04", "B03", "B02"], (1, 2, 3)),
        (["B02", "B03", "B04"], (3, 2, 1)),
        (SENTINEL, (4, 3, 2)),
        (["B2", "B3", "B4", "B8", "B8A"], (3, 2, 1)),
        (["B02_10m", "B03_10m", "B04_10m", "B08_10m"], (3, 2, 1)),
        ([f"T32TQM_20200101T100031_{code}_10m" for code in ("B08", "B04", "B03", "B02")], (2, 3, 4)),
        ([f"S2A_MSIL2A_B{n}" for n in (8, 4, 3, 2)], (2, 3, 4)),
    ],
)
@pytest.mark.parametrize("dtype", ["uint16", "uint8"])
def test_its_bands_are_seen_in_their_colours_with_a_line_that_says_so(
    make: Make, names: list[str], bands: tuple[int, ...], dtype: str
) -> None:
    """Also where 8-bit GeoTIFFs call the first bands red, green, blue and the fourth alpha, which nobody asked for."""
    path = make(names, dtype=dtype)
    called = ", ".join(names[n - 1] for n in bands)
    assert _seen(path) == (bands, [f"bands {called} of {path} are seen as red, green, blue (Sentinel-2)"])


@pytest.mark.parametrize(
    ("name", "tags", "numbers", "bands", "mission"),
    [
        ("LC08_L2SP_192027_20200801_02_T1.tif", {}, (2, 3, 4, 5), (3, 2, 1), "Landsat 8/9"),
        ("LE07_L2SP_192027_20020801_02_T1.tif", {}, (1, 2, 3, 4), (3, 2, 1), "Landsat 4-7"),
        ("LT51920271990213KIS00.tif", {}, (1, 2, 3, 4, 5, 7), (3, 2, 1), "Landsat 4-7"),
        ("a.tif", {"SPACECRAFT_ID": "LANDSAT_9"}, (5, 4, 3, 2), (2, 3, 4), "Landsat 8/9"),
        ("a.tif", {"platform": "landsat-7"}, (1, 2, 3, 4), (3, 2, 1), "Landsat 4-7"),
        ("a.tif", {"DATATAKE_1_SPACECRAFT_NAME": "Sentinel-2B"}, (2, 3, 4, 8), (3, 2, 1), "Sentinel-2"),
        ("a.tif", {"system_index": "COPERNICUS/S2_SR_HARMONIZED/x"}, (2, 3, 4, 8), (3, 2, 1), "Sentinel-2"),
        ("S2A_MSIL2A_20200101T100031_N0213.SAFE/all.tif", {}, (2, 3, 4, 8), (3, 2, 1), "Sentinel-2"),
        ("MOD09A1.A2020001.h18v04.tif", {}, (1, 2, 3, 4), (1, 4, 3), "MODIS"),
    ],
)
@pytest.mark.parametrize("form", ["B{}", "SR_B{}", "Band {}", "b{} surface reflectance"])
def test_numbers_of_bands_mean_what_the_mission_says(
    make: Make, name: str, tags: dict[str, str], numbers: Sequence[int], bands: tuple[int, ...], mission: str, form: str
) -> None:
    seen, said = _seen(make([form.format(n) for n in numbers], name, tags))
    assert seen == bands
    assert said
    assert said[0].endswith(f"are seen as red, green, blue ({mission})")


def test_landsats_reflectances_are_known_by_which_there_are(make: Make) -> None:
    assert _seen(make([f"SR_B{n}" for n in range(1, 8)]))[0] == (4, 3, 2)
    assert _seen(make(["SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "ST_B6", "SR_B7"]))[0] == (3, 2, 1)
    assert _seen(make(["SR_B2", "SR_B3", "SR_B4", "SR_B5", "ST_B10"]))[0] == (3, 2, 1)


@pytest.mark.parametrize(
    ("names", "name", "tags"),
    [
        (["B1", "B2", "B3", "B4"], "scene.tif", {}),
        (["B2", "B3", "B4", "B5"], "scene.tif", {}),
        (["SR_B2", "SR_B3", "SR_B4", "SR_B5"], "scene.tif", {}),
        (["B01", "B02", "B03", "B04"], "scene.tif", {}),
        ([f"B{n:02}" for n in range(1, 17)], "scene.tif", {}),
        (["B2", "B3", "B4", "B5"], "LC08_and_LE07.tif", {}),
        (["B2", "B3", "B4", "B5"], "landsat8/scene.tif", {}),
        (["B2", "B3", "B4", "B5"], "LE07_L1.tif", {"SPACECRAFT_ID": "LANDSAT_8"}),
        (["B4", "B5", "B6", "B7"], "LM05_L1TP_192027.tif", {}),
        (["B01", "B02", "B3N", "B04"], "AST_L1T_003.tif", {}),
        (["B2", "B3", "B8", "B4", "SR_B4"], "LC08_x.tif", {}),
        (["Red Edge 1", "Green", "Blue", "NIR"], "scene.tif", {}),
        (["red 2019", "red 2020", "green", "blue"], "scene.tif", {}),
    ],
)
def test_bands_in_doubt_are_refused_with_their_names(
    make: Make, names: list[str], name: str, tags: dict[str, str]
) -> None:
    with pytest.raises(SceneError, match=r"does not say which are red, green and blue.*; its bands are called "):
        _seen(make(names, name, tags))


def test_three_bands_with_numbers_in_doubt_bring_a_warning(make: Make) -> None:
    bands, said = _seen(make(["B2", "B3", "B4"]))
    assert bands == (1, 2, 3)
    assert "called B2, B3, B4, are seen as red, green, blue; see --bands" in said[0]
    assert _seen(make(["Band 1", "Band 2", "Band 3"], dtype="uint8")) == ((1, 2, 3), [])


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (["Band 1 - Coastal aerosol", "Band 2 - Blue", "Band 3 - Green", "Band 4 - Red", "Band 5 - NIR"], (4, 3, 2)),
        (["coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"], (6, 4, 2)),
        (["Blue (B02)", "Green (B03)", "Red (B04)", "Red Edge 1 (B05)"], (3, 2, 1)),
        (["near_infrared", "RED", "GREEN ", "sr_blue"], (2, 3, 4)),
    ],
)
def test_words_within_names_are_understood(make: Make, names: list[str], bands: tuple[int, ...]) -> None:
    assert _seen(make(names)) == (bands, [])


@pytest.mark.parametrize(
    ("name", "count", "bands"),
    [
        ("20170623_180038_0f34_3B_AnalyticMS_SR.tif", 4, (3, 2, 1)),
        ("20220623_180038_24_2416_3B_AnalyticMS_SR_8b_clip.tif", 8, (6, 4, 2)),
    ],
)
def test_planetscope_is_known_by_the_names_of_its_files(
    make: Make, name: str, count: int, bands: tuple[int, ...]
) -> None:
    assert _seen(make([f"Band {n}" for n in range(1, count + 1)], name))[0] == bands
    path = make([""] * count, name)
    seen, said = _seen(path)
    assert seen == bands
    assert said == [f"bands {', '.join(map(str, bands))} of {path} are seen as red, green, blue (PlanetScope)"]


def _tagged(path: str, waves: Sequence[float], **where: str) -> None:
    with rasterio.open(path, "r+") as dst:
        for n, wave in enumerate(waves, start=1):
            dst.update_tags(n, **where, **{"CENTRAL_WAVELENGTH_UM" if where else "wavelength": f"{wave}"})


@pytest.mark.parametrize("form", ["imagery", "nanometres", "micrometres", "names", "list", "envi"])
def test_the_bands_nearest_in_wavelength_are_seen(make: Make, tmp_path: Path, form: str) -> None:
    waves = [443, 478.5, 494, 530, 558, 575, 640, 662, 700.5, 842, 1600]
    named = [f"band {n} ({wave} Nanometers)" if form == "names" else "" for n, wave in enumerate(waves)]
    listed = {"wavelength": "{" + ", ".join(map(str, waves)) + "}"} if form == "list" else {}
    path = make(named, "s.dat" if form == "envi" else "s.tif", listed, driver="ENVI" if form == "envi" else "GTiff")
    if form == "imagery":
        _tagged(path, [wave / 1000 for wave in waves], ns="IMAGERY")
    if form in ("nanometres", "micrometres"):
        _tagged(path, [wave / (1000 if form == "micrometres" else 1) for wave in waves])
    if form == "envi":
        header = tmp_path / "s.hdr"
        header.write_text(header.read_text() + f"wavelength units = Nanometers\nwavelength = {{{str(waves)[1:-1]}}}\n")
    bands, said = _seen(path)
    assert bands == (8, 5, 3)
    assert said[0].endswith("are seen as red, green, blue by their wavelengths")
    assert _seen(path, bands=("nir", "red", "green"))[0] == (10, 8, 5)


def test_wavelengths_too_far_from_a_colour_are_not_taken_for_it(make: Make) -> None:
    path = make([""] * 4)
    _tagged(path, [0.443, 0.56, 0.665, 0.842], ns="IMAGERY")  # 0.443 is violet
    with pytest.raises(SceneError, match="does not say which are red, green and blue"):
        _seen(path)


@pytest.mark.parametrize(
    ("asked", "bands"),
    [
        ("B4,B3,B2", (3, 2, 1)),
        ("b08,B04,band 3", (4, 3, 2)),
        ("red,green,blue", (3, 2, 1)),
        ("nir,red,green", (4, 3, 2)),
        ("B02,2,red", (1, 2, 3)),
    ],
)
def test_bands_can_be_asked_for_by_number_of_the_satellite_and_by_colour(
    make: Make, asked: str, bands: tuple[int, ...]
) -> None:
    given = tuple(int(part) if part.isdigit() else part for part in asked.split(","))
    for dtype in ("uint16", "uint8"):
        assert _seen(make(["B02", "B03", "B04", "B08"], dtype=dtype), bands=given) == (bands, [])


def test_a_band_that_is_not_there_is_refused_by_its_name(make: Make) -> None:
    path = make(["B2", "B3", "B4", "B8"])
    with pytest.raises(UsageError, match=r"has no band 'B5'; its bands are called B2, B3, B4, B8"):
        _seen(path, bands=("B5", "B4", "B3"))
    with pytest.raises(UsageError, match=r"has no band 'red'"):  # in doubt
        _seen(path, bands=("red", "green", "blue"))


def test_what_names_say() -> None:
    names = ("B04", "B4", "SR_B4", "Band 4 - Red", "band_4", "LC08_L2SP_T1_SR_B4", "B04_10m", "sur_refl_b04")
    assert {code_of(name) for name in names} == {"4"}
    assert [code_of(name) for name in ("B8A", "B3N", "AB4", "b4x", "B4/B3", "Oa04", "")] == ["8A", *[None] * 6]
    assert [colour_of(name) for name in ("Red", "red-edge", "NIR", "infrared", "reddish", "red/green")] == [
        "red", None, "nir", "nir", None, None,
    ]  # fmt: skip
    waves = ("665.3 nm", "0.49 Micrometers", "10 m", "B4, central wavelength 665 nm")
    assert [wavelength_of(text) for text in waves] == [0.6653, 0.49, None, 0.665]


def test_segment_says_which_bands_it_took(geoovseg: Run, make: Make) -> None:
    path = make(["B02", "B03", "B04", "B08"])
    code, _, err = geoovseg("segment", path, "-c", "road,water", "--model", "demo")
    assert code == 0, err
    assert "are seen as red, green, blue (Sentinel-2)" in err
    assert "bands 3, 2, 1 seen as red, green, blue" in err
