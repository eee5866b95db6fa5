"""One page about labels: whole in itself, with the figures of the pixels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geoovseg import encode, report, segment
from geoovseg.demo.files import write_scene
from geoovseg.errors import OutputError, UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("report")
    write_scene(found, 5, 200, 300)
    outputs = {"output": found / "scene_labels.tif", "confidence": found / "scene_confidence.tif"}
    segment(found / "scene.tif", "road=road+street,<i>water", model="demo", **outputs)
    return found


def test_a_report_has_picture_areas_confidence_record_and_citation(folder: Path, tmp_path: Path) -> None:
    report(folder / "scene_labels.tif", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    with rasterio.open(folder / "scene_labels.tif") as src:
        labels, pixel = src.read(1), abs(src.transform.a * src.transform.e)
    for code in (0, 1, 2):
        assert f"{(labels == code).sum():,}" in text
    assert f"{(labels == 1).sum() * pixel / 1e4:,.3g}"[:4] in text
    assert 'src="data:image/jpeg;base64,' in text
    for title in ("Areas", "Confidence", "What decided the labels", "The raster", "To cite"):
        assert f"<h2>{title}</h2>" in text
    assert "SegEarth-OV: Li et al. 2024" in text
    assert "road (road, street)" in text
    assert "&lt;i&gt;water" in text
    assert "<i>" not in text


def test_a_report_loads_nothing_from_elsewhere(folder: Path, tmp_path: Path) -> None:
    report(folder / "scene_labels.tif", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []
    assert "<script" not in text


def test_shares_of_confidence_add_to_all_pixels(folder: Path, tmp_path: Path) -> None:
    report(folder / "scene_labels.tif", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    widths = [float(width) for width in re.findall(r'class="bar" style="width:([0-9.]+)rem', text)]
    with rasterio.open(folder / "scene_confidence.tif") as src:
        expected = np.histogram(src.read(1, masked=True).compressed() * src.scales[0], 20, (0, 1))[0]
    np.testing.assert_allclose(widths, 20 * expected / expected.max(), atol=0.01)


def test_without_the_scene_there_is_no_picture_and_it_is_said(folder: Path, tmp_path: Path, geoovseg: Any) -> None:
    (tmp_path / "l.tif").write_bytes((folder / "scene_labels.tif").read_bytes())
    code, out, err = geoovseg("report", str(tmp_path / "l.tif"), "-o", str(tmp_path / "r.html"), "--title", "A & B")
    assert (code, out.strip()) == (0, str(tmp_path / "r.html")), err
    text = (tmp_path / "r.html").read_text()
    assert "there is no picture" in text
    assert "<h1>A &amp; B</h1>" in text
    assert "<h2>Confidence" not in text


def test_what_would_be_lost_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.html"):
        report(folder / "scene_labels.tif", tmp_path / "r.pdf")
    (tmp_path / "r.html").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        report(folder / "scene_labels.tif", tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text() == "mine"


def test_labels_of_features_and_of_other_bands_have_their_picture(folder: Path, tmp_path: Path) -> None:
    with rasterio.open(folder / "scene.tif") as src:
        bands, profile = src.read([3, 2, 1, 1, 1]).astype("uint16") * 30, {**src.profile, "count": 5, "dtype": "uint16"}
    with rasterio.open(tmp_path / "five.tif", "w", **{**profile, "photometric": "minisblack"}) as dst:
        dst.write(bands)
    given = {"bands": [3, 2, 1], "scale": "0,9000", "model": "demo"}
    segment(tmp_path / "five.tif", "road,water", output=tmp_path / "a_labels.tif", **given)  # type: ignore[arg-type]
    encode(tmp_path / "five.tif", **given)  # type: ignore[arg-type]
    segment(tmp_path / "five_features.zarr", "road,water", output=tmp_path / "b_labels.tif")
    for name in "ab":
        report(tmp_path / f"{name}_labels.tif", tmp_path / f"{name}.html")
        assert 'src="data:image/jpeg;base64,' in (tmp_path / f"{name}.html").read_text()


def test_an_image_that_is_found_but_does_not_fit_costs_the_picture_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "l.tif").write_bytes((folder / "scene_labels.tif").read_bytes())
    write_scene(tmp_path, 5, 100, 120)
    report(tmp_path / "l.tif", tmp_path / "r.html")
    assert "There is no picture: " in (tmp_path / "r.html").read_text()
    with pytest.raises(UsageError, match="labels of another scene"):
        report(tmp_path / "l.tif", tmp_path / "s.html", scene=tmp_path / "scene.tif")
