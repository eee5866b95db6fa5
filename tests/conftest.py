"""What tests share: tiny seeded towers, scenes built on the spot, and where the case folders are."""

from __future__ import annotations

import os
import signal
import sys
import zipfile

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # cores are shared out; read once, when torch is imported
    jobs = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in a shell's background; commands of tests are not
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "open_clip" not in sys.modules:  # before tests import it with all that it brings
    import geoovseg.models.light

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import open_clip
import pytest
import torch
from raster_files import TRANSFORM as TRANSFORM
from raster_files import written
from web import serving

from geoovseg.demo.scenes import render
from geoovseg.models.vit import ClipVit
from geoovseg.scene.scene import DEMO_TAG

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(autouse=True)
def _own_caches(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text features are kept apart from the user's, and only tests marked `weights` see downloaded ones."""
    monkeypatch.setenv("GEOOVSEG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("GEOOVSEG_OFFLINE", "0")  # what a command sets in this process does not outlive its test
    monkeypatch.setenv("GEOOVSEG_MODEL_DIR", "")
    if not request.node.get_closest_marker("weights"):
        nowhere = str(tmp_path_factory.getbasetemp() / "no_weights")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", nowhere)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("trial") and "GEOOVSEG_TRIALS" not in os.environ:
            item.add_marker(pytest.mark.skip(reason="takes long: make trials"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def tiny_clip() -> open_clip.CLIP:
    """A random CLIP of 12 tiny blocks, patch 8 on 32 pixels."""
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 12, "width": 24, "head_width": 8, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
    return open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text).eval().requires_grad_(False)


@pytest.fixture
def tiny_vit(tiny_clip: open_clip.CLIP) -> ClipVit:
    return ClipVit(tiny_clip.visual)


@pytest.fixture
def write_raster(tmp_path: Path) -> Callable[..., str]:
    """Write an array (bands, h, w) as a GeoTIFF and return its name; keywords go to rasterio, `tags` to the file."""

    def write(data: np.ndarray, name: str = "scene.tif", **given: Any) -> str:
        return written(tmp_path / name, data, **given)

    return write


@pytest.fixture(scope="session")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """A drawn scene of 280 x 230 pixels with its ground truth."""
    return render(1000, 280, 230)


@pytest.fixture
def demo_scene(write_raster: Callable[..., str], drawn: tuple[np.ndarray, np.ndarray]) -> str:
    """The drawn scene as a tagged GeoTIFF."""
    return write_raster(drawn[0], tags={DEMO_TAG: "1000"})


@pytest.fixture
def geoovseg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run the command line in this process: (exit code, stdout, stderr)."""
    from geoovseg.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["geoovseg", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server of this machine, a process of its own, that gives the files in tmp_path."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(tmp_path) as web:
        yield web.url


def zipped(path: Path) -> Path:
    """The files of a folder in an archive in it."""
    archive = path / "all.zip"
    files = sorted(each for each in path.iterdir() if each.is_file() and each != archive)
    with zipfile.ZipFile(archive, "w") as file:
        for each in files:
            file.write(each, each.name)
    return archive


def shared_file(*parts: str) -> Path:
    """A file of the shared test data; skips the test with a reason where it is not there."""
    root = Path(os.environ["GEOOVSEG_RASTERS"]) if "GEOOVSEG_RASTERS" in os.environ else SHARED / "rasters"
    path = root.joinpath(*parts[1:]) if parts[0] == "rasters" else SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(parts)} of the shared test data, which is not beside this checkout")
    return path


def hide(data: np.ndarray, hole: np.ndarray, kind: str) -> dict[str, Any]:
    """The profile that says `hole` of `data` has no data: by a nodata value, an alpha band or a mask."""
    if kind == "nodata":
        data[:, hole] = 0
        return {"nodata": 0}
    if kind == "alpha":
        data[3] = np.where(hole, 0, 255)
        return {"photometric": "rgb", "alpha": "yes"}
    return {"mask": np.where(hole, 0, 255).astype(np.uint8)}
