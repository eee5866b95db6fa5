"""The notebook runs from nothing, and results show themselves."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from geoovseg import Segmenter, encode, open_features, segment
from geoovseg.demo.files import write_scene

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"
PICTURE = re.compile(r'src="data:image/png;base64,([^"]+)"')


def _picture(html: str) -> np.ndarray:
    found = PICTURE.search(html)
    assert found is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB"))


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.trial
def test_the_notebook_runs_from_nothing(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, 4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    shown = [out["data"].get("text/html", "") for each in outputs for out in each if "data" in out]
    pictures = [_picture(html) for html in shown if PICTURE.search(html)]
    assert len(pictures) == 2
    assert "Warning" not in "".join(out.get("text", "") for each in outputs for out in each)
    assert all(picture.std() > 20 for picture in pictures)
    assert any("cells of" in html for html in shown)
    assert (tmp_path / "notebook" / "report.html").stat().st_size > 20_000


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_scene(tmp_path_factory.mktemp("notebook"), 5, 200, 300)[0]


def test_labels_show_picture_classes_and_run(scene: str, tmp_path: Path) -> None:
    result = segment(scene, "road,<b>water", model="demo", output=tmp_path / "l.tif")
    html = result._repr_html_()
    assert _picture(html).shape[1] > 400
    assert "&lt;b&gt;water" in html
    assert "<b>" not in html
    assert f"{result.classes['road']['pixels']:,}" in html
    assert "segearth with demo on cpu" in html
    Path(scene).rename(tmp_path / "away.tif")
    assert PICTURE.search(result._repr_html_()) is None  # without the scene there are the classes
    (tmp_path / "away.tif").rename(scene)


def test_features_and_segmenters_show_what_they_are(scene: str, tmp_path: Path) -> None:
    kept = encode(scene, model="demo", output=tmp_path / "f.zarr")
    for shown in (kept, open_features(kept.features)):
        html = shown._repr_html_()
        assert f"{kept.rows:,} x {kept.columns:,} cells" in html
        assert "segearth with demo" in html
    assert "house, roof" in Segmenter("building=house+roof,road", model="demo")._repr_html_()


def test_progress_can_be_a_bar(scene: str, tmp_path: Path, capsys: Any) -> None:
    segment(scene, "road", model="demo", output=tmp_path / "l.tif", progress=True)
    assert "100%" in capsys.readouterr().err
