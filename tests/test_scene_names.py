"""Outputs of scenes that are not simply files: clean names of their own, beside the file that the scene is in."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import TRANSFORM

from geoovseg.labels.names import label_names, output_names
from geoovseg.run.estimate import dry_run
from geoovseg.segmenter import segment

Run = Callable[..., tuple[int, str, str]]
OPTIONS = ("-c", "road,water", "--model", "demo")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of many formats, at least by their names; the current one is another."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("f.nc", "f.h5", "x.tif", "my scene (1).tif", "a.zip", "100%25.tif"):
        (folder / name).touch()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


@pytest.mark.parametrize(
    ("scene", "name"),
    [
        ('NETCDF:"{}/f.nc":ndvi', "f_ndvi"),
        ("netcdf:{}/f.nc:ndvi", "f_ndvi"),
        ('HDF5:"{}/f.h5"://a group/red', "f_a_group_red"),
        ("HDF5:{}/f.h5://grid/red", "f_grid_red"),
        ('HDF4_EOS:EOS_GRID:"{}/f.h5":MOD_Grid:b01', "f_EOS_GRID_MOD_Grid_b01"),
        ("GTIFF_DIR:2:{}/x.tif", "x_page2"),
        ("GTIFF_DIR:off:1234:{}/x.tif", "x_page_at_1234"),
        ("DERIVED_SUBDATASET:LOGAMPLITUDE:{}/x.tif", "x_LOGAMPLITUDE"),
        ("GPKG:{}/f.nc:tab'le", "f_tab_le"),
        ("file://{}/x.tif", "x"),
        ("file://{}/my%20scene%20(1).tif", "my scene (1)"),
        ("{}/my scene (1).tif", "my scene (1)"),
        ("{}/100%25.tif", "100%25"),
        ("vrt://{}/x.tif?bands=3,2,1", "x"),
        ("/vsizip/{}/a.zip/in/b.tif", "b"),
        ("/vsizip/{{{}/a.zip}}/in/b.tif", "b"),
        ("/vsizip/{}/a.zip", "a"),
        ("zip://{}/a.zip!in/b.tif", "b"),
        ("zip+file://{}/a.zip!b.tif", "b"),
        ('NETCDF:"/vsizip/{}/a.zip/g.nc":red', "g_red"),
        ("/vsisubfile/0_10,{}/x.tif", "x"),
    ],
)
def test_outputs_of_parts_of_files_lie_beside_the_file(data: Path, scene: str, name: str) -> None:
    scene = scene.format(data)
    assert output_names(scene).labels == data / f"{name}_labels.tif"
    assert label_names([scene]) == [data / f"{name}_labels.tif"]
    assert label_names([scene], "out") == [Path("out") / f"{name}_labels.tif"]


@pytest.mark.parametrize(
    ("scene", "name"),
    [
        ("https://host:8080/a/b%20c.tif?sv=1&sig=x/y.z", "b_c"),
        ("/vsicurl/https://host/a/b.tif", "b"),
        ("/vsicurl?max_retry=3&url=https%3A%2F%2Fhost%2Fb.tif", "b"),
        ("s3://bucket/key/b.tif", "b"),
        ("/vsis3/bucket/b.tif", "b"),
        ("zip+https://host/a.zip!b.tif", "b"),
        ('NETCDF:"/vsicurl/https://host/f.nc":red', "f_red"),
        ("WMS:https://host/tiles?request=GetTile", "tiles"),
        ("SENTINEL2_L2A:/missing/MTD_MSIL2A.xml:10m:EPSG_32632", "MTD_MSIL2A_10m_EPSG_32632"),
        ("<VRTDataset rasterXSize='1'/>", "scene"),
    ],
)
def test_outputs_of_what_is_not_on_this_disk_lie_here_with_clean_names(data: Path, scene: str, name: str) -> None:
    assert output_names(scene).labels == Path(f"{name}_labels.tif")
    assert re.fullmatch(r"[\w.-]+", name)


def test_variables_and_pages_of_one_file_have_names_of_their_own(data: Path) -> None:
    scenes = [f'NETCDF:"{data}/f.nc":{name}' for name in ("red", "nir")] + [f'HDF5:"{data}/f.h5"://red']
    assert [name.name for name in label_names(scenes)] == [
        "f_red_nc_labels.tif",
        "f_nir_labels.tif",
        "f_red_h5_labels.tif",
    ]
    pages = [f"GTIFF_DIR:{n}:{data}/x.tif" for n in (1, 2)]
    assert [name.name for name in label_names(pages)] == ["x_page1_labels.tif", "x_page2_labels.tif"]


def test_a_page_of_a_file_is_segmented_beside_it(geoovseg: Run, data: Path) -> None:
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": 32, "width": 32}
    for more in ({}, {"APPEND_SUBDATASET": "YES"}):
        with rasterio.open(data / "x.tif", "w", crs="EPSG:32632", transform=TRANSFORM, **profile, **more) as dst:
            dst.write(np.full((3, 32, 32), 99, np.uint8))
    code, out, err = geoovseg("segment", f"GTIFF_DIR:2:{data}/x.tif", f"file://{data}/x.tif", *OPTIONS)
    assert code == 0, err
    assert out.split() == [f"{data}/x_page2_labels.tif", f"{data}/x_labels.tif"]


def test_a_folder_for_one_scene_is_made(geoovseg: Run, demo_scene: str, tmp_path: Path) -> None:
    folder = f"{tmp_path}/new/er{os.sep}"
    code, out, _ = geoovseg("segment", demo_scene, *OPTIONS, "-o", folder, "--dry-run", "--json")
    assert code == 0
    assert f'"labels": "{folder}scene_labels.tif"' in out
    assert not Path(folder).exists()
    code, out, err = geoovseg("segment", demo_scene, *OPTIONS, "-o", folder)
    assert code == 0, err
    assert out.strip() == f"{folder}scene_labels.tif"
    more = {"model": "demo", "output": f"{tmp_path}/python/"}
    assert dry_run(demo_scene, "road,water", **more).labels == f"{tmp_path}/python/scene_labels.tif"
    assert segment(demo_scene, "road,water", **more).labels == f"{tmp_path}/python/scene_labels.tif"
    code, _, err = geoovseg("segment", demo_scene, *OPTIONS, "-o", f"{demo_scene}/in/")
    assert code == 2
    assert "cannot make this folder" in err
