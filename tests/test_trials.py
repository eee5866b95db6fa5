"""Killed commands and full disks: given again, the command ends as if nothing had been, and nothing is left over.

Each runs in a process of its own (trials.py). GEOOVSEG_TRIALS is how many of them; `make trials` tries 40.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import trials
from rasterio.transform import from_origin

from geoovseg.demo.scenes import render
from geoovseg.scene.scene import DEMO_TAG

COUNT = int(os.environ.get("GEOOVSEG_TRIALS", "0"))
PLACE = {"driver": "GTiff", "crs": "EPSG:32632", "transform": from_origin(480_000, 5_460_000, 0.5, 0.5)}
SEED = 1007
OUTPUTS = ["labels.qml", "labels.tif", "labels.tif.aux.xml", "out.gpkg", "sure.qml", "sure.tif"]
pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes and disks are those of Linux"),
    pytest.mark.skipif(not COUNT, reason="takes minutes: make trials"),
]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of two parts."""
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    with rasterio.open(path, "w", height=624, width=224, count=3, dtype="uint8", **PLACE) as dst:
        dst.write(render(SEED, 624, 224)[0])
        dst.update_tags(**{DEMO_TAG: str(SEED)})
    return path


def _segment(scene: Path, *more: str) -> list[str]:
    words = ["--vocabulary", "demo", "--model", "demo", "--background", "none", "--stride", "112"]
    outputs = ["-o", "{}/labels.tif", "--vectors", "{}/out.gpkg", "--confidence", "{}/sure.tif"]
    return ["segment", str(scene), *words, *outputs, *more]


def _trials(kind: str, folder: Path, words: Sequence[str], *before: str) -> list[dict[str, Any]]:
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "GEOOVSEG_CACHE": str(folder / "cache")}
    command = [*before, sys.executable, trials.__file__, kind, folder / "runs", str(COUNT), "1", *words]
    done = subprocess.run(command, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _ends_equal(whole: dict[str, Any], found: Sequence[dict[str, Any]]) -> None:
    assert whole["again"] == 0
    assert len(found) == COUNT
    for one in found:
        assert (one["again"], one["files"]) == (0, whole["files"]), one
        assert "Traceback" not in one["heard"] + one["said"], one


def test_killed_segmentations_end_equal_and_leave_nothing(scene: Path, tmp_path: Path) -> None:
    whole, *found = _trials("kills", tmp_path, _segment(scene))
    _ends_equal(whole, found)
    assert sorted(whole["files"]) == [
        "labels.qml",
        "labels.tif",
        "labels.tif.aux.xml",
        "out.gpkg",
        "sure.qml",
        "sure.tif",
    ]
    assert any(one["killed"] == -9 for one in found)


def test_workers_of_a_killed_run_end_within_a_second_and_in_silence(scene: Path, tmp_path: Path) -> None:
    whole, *found = _trials("kills", tmp_path, _segment(scene, "--workers", "2"))
    _ends_equal(whole, found)
    assert not [one["alive"] for one in found if one["gone"] > 1]
    assert not [one["heard"] for one in found if "resource_tracker" in one["heard"]]


def test_killed_encodings_end_equal_and_leave_nothing(scene: Path, tmp_path: Path) -> None:
    words = ["encode", str(scene), "--model", "demo", "--stride", "112", "-o", "{}/x.zarr"]
    whole, *found = _trials("kills", tmp_path, words)
    _ends_equal(whole, found)
    assert {name.split("/")[0] for name in whole["files"]} == {"x.zarr"}
    assert any(one["killed"] == -9 for one in found)


def test_killed_vectorisations_end_equal_and_leave_nothing(tmp_path: Path) -> None:
    codes = np.kron(np.random.default_rng(1).integers(0, 5, (75, 150)), np.ones((32, 32))).astype(np.uint8)
    with rasterio.open(tmp_path / "codes.tif", "w", height=2400, width=4800, count=1, dtype="uint8", **PLACE) as dst:
        dst.write(codes, 1)
    command = ["vectorize", str(tmp_path / "codes.tif"), "{}/out.gpkg", "--min-area", "300", "--workers", "2"]
    whole, *found = _trials("kills", tmp_path, [*command, "--overwrite"])
    _ends_equal(whole, found)
    assert list(whole["files"]) == ["out.gpkg"]
    assert not [one["alive"] for one in found if one["gone"] > 1]


def _unshared() -> list[str]:
    """How to get the right to mount, where there is one."""
    for before in ([], ["unshare", "--mount", "--map-root-user"]):
        test = [*before, "sh", "-c", "d=$(mktemp -d) && mount -t tmpfs trial $d && umount $d; e=$?; rmdir $d; exit $e"]
        if subprocess.run(test, capture_output=True, check=False).returncode == 0:
            return before
    pytest.skip("no right to mount a disk of a size")


def test_full_disks_leave_whole_outputs_or_none_and_going_on_works_when_there_is_room(
    scene: Path, tmp_path: Path
) -> None:
    whole, *found = _trials("disks", tmp_path, _segment(scene), *_unshared())
    _ends_equal(whole, found)
    for one in found:
        named = {name: said for name, said in one["left"].items() if ".parts/" not in name}
        assert named.items() <= whole["files"].items(), one
        assert (one["code"] == 0) == (named == whole["files"]), one
    assert {one["code"] for one in found} == {0, 1}
