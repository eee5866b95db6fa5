"""The plugin in a real QGIS, where there is one: algorithms, progress, cancel, styles, and the zip."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio

from geoovseg.demo.files import write_scene
from geoovseg.methods.cards import OWN

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "qgis" / "geoovseg_qgis"
COMMAND = str(Path(sys.executable).with_name("geoovseg"))
PROCESS = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
in_qgis = pytest.mark.skipif(PROCESS is None, reason="no QGIS on this machine (Debian's qgis)")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qgis")
    write_scene(folder, 5, 300, 400)
    return folder / "scene.tif"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A user of QGIS with the plugin; its own PYTHONPATH would break geoovseg, if that were given it."""
    plugins = tmp_path / ".local/share/QGIS/QGIS3/profiles/default/python/plugins"
    plugins.mkdir(parents=True)
    (plugins / "geoovseg_qgis").symlink_to(PLUGIN)
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    given = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    given |= {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(run), "QT_QPA_PLATFORM": "offscreen"}
    return given | {"GEOOVSEG_COMMAND": COMMAND, "QGIS_PLUGIN": str(PLUGIN.parent)}


def polygons_of_two(source: Path, target: Path) -> None:
    """Everything as grass in the first layer, as tree in the second."""
    table = geopandas.read_file(source, layer="classes")[["geometry"]]
    for layer, name in (("a", "grass"), ("b", "tree")):
        table.assign(class_name=name).to_file(target, layer=layer, driver="GPKG")


def _run(environment: dict[str, str], name: str, most: float = 1000, **parameters: Any) -> dict[str, Any]:
    script = str(Path(__file__).with_name("qgis_run.py"))
    command = ["/usr/bin/python3", script, f"geoovseg:{name}", json.dumps(parameters), str(most)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    told: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return told


@pytest.mark.trial
@in_qgis
def test_labels_and_polygons_come_styled_with_progress(
    environment: dict[str, str], scene: Path, tmp_path: Path
) -> None:
    outputs = {"LABELS": str(tmp_path / "l.tif"), "VECTORS": str(tmp_path / "v.gpkg")}
    found = _run(environment, "segment", SCENE=str(scene), CLASSES="building,road,water", MODEL="demo", **outputs)
    assert found["labels"] == ["background", "building", "road", "water"]
    assert set(found["polygons"]) >= {"building", "road", "water"}
    assert found["parts"] == sorted(found["parts"])
    assert found["parts"][-1] == 100
    assert any("looking for 1 building, 2 road, 3 water" in line for line in found["said"])


@pytest.mark.trial
@in_qgis
def test_cancel_ends_a_run_and_leaves_no_labels(environment: dict[str, str], scene: Path, tmp_path: Path) -> None:
    outputs = {"LABELS": str(tmp_path / "l.tif")}
    found = _run(environment, "segment", most=5, SCENE=str(scene), CLASSES="road", MODEL="demo", **outputs)
    assert found["parts"][-1] < 100
    assert not (tmp_path / "l.tif").exists()


@pytest.mark.trial
@in_qgis
def test_scripts_run_every_algorithm(environment: dict[str, str], scene: Path, tmp_path: Path) -> None:
    """Encode, ask, polygons, figures, zones, points and corrections, one after the other, by qgis_process."""
    assert PROCESS is not None
    enable = [PROCESS, "plugins", "enable", "geoovseg_qgis"]
    codes = [subprocess.run(enable, env=environment, check=False, capture_output=True).returncode for _ in range(2)]
    assert 0 in codes, codes  # QGIS 3.22 itself crashes now and then as it ends

    def run(name: str, **given: object) -> None:
        pairs = [f"--{key}={value}" for key, value in given.items()]
        found = subprocess.run(
            [PROCESS, "run", f"geoovseg:{name}", *pairs], env=environment, capture_output=True, text=True, check=False
        )
        assert found.returncode == 0, (found.stdout, found.stderr)

    labels, polygons = tmp_path / "a.tif", tmp_path / "p.gpkg"
    run("encode", SCENE=scene, MODEL="demo", FEATURES=tmp_path / "f.zarr")
    run("ask", FEATURES=tmp_path / "f.zarr", CLASSES="tree,grass", LABELS=labels)
    run("vectorize", LABELS=labels, MIN_AREA=20, POLYGONS=polygons)
    run("evaluate", LABELS=labels, TRUTH=scene.with_name("truth.tif"), MAP="*=background", FIGURES=tmp_path / "f.json")
    run("stats", LABELS=labels, ZONES=polygons, OUTPUT=tmp_path / "s.gpkg")
    run("sample", LABELS=labels, COUNT=20, POINTS=tmp_path / "points.gpkg")
    run("apply", LABELS=labels, EDITS=polygons, CORRECTED=tmp_path / "c.tif")
    assert json.loads((tmp_path / "f.json").read_text())["classes"]["tree"]["iou"] > 0.5
    with rasterio.open(labels) as before, rasterio.open(tmp_path / "c.tif") as after:
        assert (before.read(1) == after.read(1)).mean() > 0.95
        assert set(np.unique(after.read(1))) <= {0, 1, 2, 255}
    polygons_of_two(polygons, tmp_path / "two.gpkg")
    for name, layer in (
        ("b", f"{tmp_path / 'two.gpkg'}|layername=b"),
        ("f", f"{tmp_path / 'two.gpkg'}|layername=a|subset=fid<2"),
    ):
        run("apply", LABELS=labels, EDITS=layer, CORRECTED=tmp_path / f"{name}.tif")
    with rasterio.open(tmp_path / "b.tif") as other, rasterio.open(tmp_path / "f.tif") as same:
        trees, grass = (np.count_nonzero(other.read(1) == code) for code in (1, 2))
        assert trees > 50 * grass  # of the layer that was chosen, but for regions too small for a polygon
        assert np.count_nonzero(same.read(1) == 1) > 1000  # the filter leaves one polygon
    run("evaluate", LABELS=labels, TRUTH=f"{tmp_path / 'two.gpkg'}|layername=b", FIGURES=tmp_path / "g.json")
    run("stats", LABELS=labels, ZONES=f"{tmp_path / 'two.gpkg'}|layername=b", OUTPUT=tmp_path / "t.gpkg")
    assert "grass" not in json.loads((tmp_path / "g.json").read_text())["classes"]
    missing = {**environment, "GEOOVSEG_COMMAND": str(tmp_path / "nowhere")}
    found = subprocess.run(
        [PROCESS, "run", "geoovseg:vectorize", f"--LABELS={labels}", f"--POLYGONS={tmp_path / 'x.gpkg'}"],
        env=missing, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "geoovseg is not found" in found.stdout + found.stderr


def test_the_plugin_knows_every_method() -> None:
    tree = ast.parse((PLUGIN / "algorithms.py").read_text())
    (methods,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "METHODS"
    )
    assert sorted(methods) == sorted(OWN)


def test_the_zip_holds_one_folder_with_all_that_qgis_asks_for(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "qgis" / "zip.py"), str(tmp_path / "p.zip")], check=True)
    with zipfile.ZipFile(tmp_path / "p.zip") as packed:
        names = packed.namelist()
        metadata = packed.read("geoovseg_qgis/metadata.txt").decode()
    assert {name.partition("/")[0] for name in names} == {"geoovseg_qgis"}
    assert {f"geoovseg_qgis/{name}" for name in ("__init__.py", "metadata.txt", "icon.svg", "LICENSE")} <= set(names)
    assert all(
        f"{key}=" in metadata for key in ("name", "version", "qgisMinimumVersion", "description", "about", "author")
    )
    assert not any("__pycache__" in name for name in names)
