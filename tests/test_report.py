"""One page about labels: whole in itself, with the figures of the pixels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geoovseg import report, segment
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
