"""Ray as a way to share work: the same labels, whatever dies, and messages that name the machine.

Clusters take a while to begin, so most of this runs with `make trials`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import rasterio
import yaml
from safetensors.torch import save_file

from geoovseg.demo.files import write_scene
from geoovseg.errors import SceneError, UsageError, WeightsMissingError
from geoovseg.evaluation import datasets
from geoovseg.run.executors import cluster
from geoovseg.run.executors.cluster import Abroad, Failed, Who
from geoovseg.run.worker import Worker
from geoovseg.settings import Settings
from geoovseg.vocabulary import parse_classes

pytestmark = pytest.mark.xdist_group("ray")
WORDS = parse_classes(["building,road,water"])
COMMAND = ("segment", "-c", "building,road,water", "--model", "demo", "--json")


def _member() -> Abroad:
    found = Abroad.__new__(Abroad)
    super(Abroad, found).__init__()
    return found


def test_an_error_of_a_worker_names_its_machine_and_keeps_its_kind(tmp_path: Path) -> None:
    there = _member()
    there.load(WORDS, Settings(model="demo"))
    found = there.do("answer", "job", str(tmp_path / "none.tif"), Settings(model="demo"))
    assert isinstance(found, Failed)
    assert isinstance(found.error, SceneError)
    assert str(found.error).startswith(f"on node {socket.gethostname()}: ")
    assert found.error.exit_code == 4


def test_missing_weights_of_a_worker_name_its_machine_and_the_command(demo_scene: str) -> None:
    there, settings = _member(), Settings(model="RemoteCLIP-ViT-B-32")
    there.load(WORDS, settings)
    found = there.do("answer", "job", demo_scene, settings)
    assert isinstance(found.error, WeightsMissingError)
    assert f"on node {socket.gethostname()}: " in str(found.error)
    assert "`geoovseg models fetch RemoteCLIP-ViT-B-32`" in str(found.error)
    assert found.error.exit_code == 5


def test_a_machine_with_other_weights_is_refused(demo_scene: str) -> None:
    settings = Settings(model="demo", background="none")
    job = Worker(WORDS, settings).job(demo_scene, settings)
    other = replace(job, facts=replace(job.facts, digests={**job.facts.digests, "weights_sha256": "0" * 64}))
    there = _member()
    there.load(WORDS, settings)
    found = there.do("begin", other, job.parts(job.layout.panels)[:1])
    assert isinstance(found, Failed)
    assert "its weights are others than elsewhere: weights_sha256 is 6352e72b" in str(found.error)


def test_a_machine_with_other_versions_is_refused() -> None:
    mine = cluster.versions()
    cluster._check(Who("here", mine))
    with pytest.raises(UsageError, match=r"node far runs other versions.*torch 1\.0, here"):
        cluster._check(Who("far", {**mine, "torch": "1.0"}))


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'geoovseg\[ray\]'"):
        cluster.connected("auto")


def test_two_ways_of_sharing_are_refused(geoovseg: Any, demo_scene: str) -> None:
    code, _, err = geoovseg(*COMMAND, demo_scene, "--ray", "auto", "--shard", "1/2")
    assert (code, "use one of them" in err) == (2, True)
    code, _, err = geoovseg(*COMMAND, demo_scene, "--worker-cpus", "2")
    assert (code, "is for workers of --ray" in err) == (2, True)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of eight parts, which take a while."""
    folder = tmp_path_factory.mktemp("ray")
    return write_scene(folder, 1001, 2560, 600)[0]


class Two:
    """A cluster of two machines with a core each; a folder may be missing on the second, `bare`."""

    def __init__(self, *missing: str) -> None:
        script = Path(__file__).with_name("ray_cluster.py")
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([sys.executable, str(script), *missing], text=True, **pipes)
        self.address = self._said().readline().strip()

    def _said(self) -> Any:
        return self._process.stdout

    def kill_one(self) -> None:
        """End one machine at once."""
        assert self._process.stdin is not None
        self._process.stdin.write("kill\n")
        self._process.stdin.flush()
        assert self._said().readline() == "killed\n"

    def close(self) -> None:
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def two() -> Iterator[Two]:
    found = Two()
    yield found
    found.close()


def _run(scene: str, output: Path, *more: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "geoovseg", *COMMAND, scene, "-o", str(output), *more]
    given = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _labels(path: Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read(1)


def _ended(run: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    assert "Traceback" not in err
    assert "raylet" not in out
    return {**json.loads(out.splitlines()[-1]), "err": err}


@pytest.fixture(scope="module")
def plain(scene: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The labels of one process of one thread."""
    path = tmp_path_factory.mktemp("plain") / "plain.tif"
    _ended(_run(scene, path))
    return path


@pytest.mark.trial
def test_labels_of_a_cluster_are_those_of_one_process(two: Two, scene: str, plain: Path, tmp_path: Path) -> None:
    found = _ended(_run(scene, tmp_path / "ray.tif", "--ray", two.address))
    assert found["parts"] > 3
    assert (tmp_path / "ray.tif").read_bytes() == plain.read_bytes()


@pytest.mark.trial
def test_the_doctor_asks_every_machine(two: Two, scene: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "geoovseg", "doctor", "--ray", two.address, "--json", "--scene"]
    for name, there in ((scene, True), (str(tmp_path / "none.tif"), False)):
        done = subprocess.run([*command, name], capture_output=True, text=True, check=False)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(found) == 2, done.stderr
        assert all(each["packages"]["geoovseg"] and each["node"] for each in found)
        assert all((each["scene"] == "can be opened") is there for each in found)


@pytest.mark.trial
def test_many_small_scenes_share_a_cluster(two: Two, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for n in range(12):
        made = write_scene(tmp_path / f"d{n}", 1000 + n, 160, 200)[0]
        shutil.copy(made, tmp_path / "in" / f"s{n}.tif")
    for output, more in (("a/", ()), ("b/", ("--ray", two.address))):
        run = _run(str(tmp_path / "in"), Path(f"{tmp_path}/{output}"), *more)
        _, err = run.communicate(timeout=300)
        assert run.returncode == 0, err
    for n in range(12):
        np.testing.assert_array_equal(*(_labels(tmp_path / f"{k}/s{n}_labels.tif") for k in "ab"))


@pytest.mark.trial
def test_a_machine_that_dies_in_the_middle_changes_nothing(scene: str, plain: Path, tmp_path: Path) -> None:
    found = Two()
    try:
        run = _run(scene, tmp_path / "ray.tif", "--ray", found.address)
        _wait(lambda: len([*(tmp_path / "ray.tif.parts").glob("part_*.json")]) >= 1, run)
        found.kill_one()
        said = _ended(run)
    finally:
        found.close()
    assert "died; what it had in hand is computed again" in said["err"]
    assert (tmp_path / "ray.tif").read_bytes() == plain.read_bytes()


@pytest.mark.trial
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_data_sets_are_spread_over_a_cluster(two: Two, tmp_path: Path) -> None:
    """With the figures of one process; an error names its machine."""
    rng, said = np.random.default_rng(1), yaml.safe_load(datasets.file_of("loveda").read_text())
    for n in range(3):
        for folder, shape in (("img", (3, 60, 80)), ("ann", (1, 60, 80))):
            (tmp_path / folder).mkdir(exist_ok=True)
            grid = {"height": 60, "width": 80, "count": shape[0], "dtype": "uint8"}
            with rasterio.open(tmp_path / folder / f"{n}.png", "w", driver="PNG", **grid) as dst:
                dst.write(rng.integers(0, 8 if folder == "ann" else 256, shape, np.uint8))
    (tmp_path / "d.yaml").write_text(yaml.safe_dump({**said, "expect": {"images": 3}}))
    places = ["--images", str(tmp_path / "img"), "--truth", str(tmp_path / "ann"), "-m", "clearclip", "--model", "demo"]
    found = []
    for name, more in (("one", []), ("ray", ["--ray", two.address, "--worker-cpus", "1"])):
        command = ["benchmark", str(tmp_path / "d.yaml"), *places, "-o", str(tmp_path / name), "--json", *more]
        run = subprocess.run([sys.executable, "-m", "geoovseg", *command], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        found.append(json.loads(run.stdout)["confusion"])
    assert found[0] == found[1]


@pytest.mark.trial
def test_what_a_killed_driver_left_is_gone_on_with_without_ray(
    two: Two, scene: str, plain: Path, tmp_path: Path
) -> None:
    run = _run(scene, tmp_path / "ray.tif", "--ray", two.address)
    parts = tmp_path / "ray.tif.parts"
    _wait(lambda: len([*parts.glob("part_*.json")]) >= 1, run)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    said = _ended(_run(scene, tmp_path / "ray.tif", "--resume"))
    assert said["parts_kept"] >= 1
    assert (tmp_path / "ray.tif").read_bytes() == plain.read_bytes()


@pytest.mark.trial
def test_ctrl_c_keeps_finished_parts_of_a_cluster(two: Two, scene: str, plain: Path, tmp_path: Path) -> None:
    run = _run(scene, tmp_path / "ray.tif", "--ray", two.address)
    _wait(lambda: len([*(tmp_path / "ray.tif.parts").glob("part_*.json")]) >= 1, run)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert "--resume goes on" in err
    assert _ended(_run(scene, tmp_path / "ray.tif", "--resume", "--ray", two.address))["parts_kept"] >= 1
    assert (tmp_path / "ray.tif").read_bytes() == plain.read_bytes()


@pytest.fixture(scope="module")
def half(scene: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Two, Path]]:
    """Two machines, and a folder of scene and weights that only the first one has."""
    folder = tmp_path_factory.mktemp("half")
    shutil.copy(scene, folder / "scene.tif")
    save_file(open_clip.create_model("ViT-S-32").state_dict(), folder / "small.safetensors")
    found = Two(str(folder))
    yield found, folder
    found.close()


@pytest.mark.trial
@pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "--uts", "true"], check=False, capture_output=True).returncode != 0,
    reason="no machine can be pretended here: unshare is not allowed",
)
def test_what_a_machine_lacks_is_told_with_its_name(
    half: tuple[Two, Path], scene: str, plain: Path, tmp_path: Path
) -> None:
    cluster, folder = half
    output, more = tmp_path / "ray.tif", ("--ray", cluster.address)
    for given, code, message in (
        ((scene, output, "--model", f"ViT-S-32@{folder / 'small.safetensors'}"), 5, "on node bare: no weights at"),
        ((str(folder / "scene.tif"), output), 4, "on node bare: cannot open"),
    ):
        run = _run(*given, *more)  # type: ignore[arg-type]
        _, err = run.communicate(timeout=300)
        assert (run.returncode, message in err, "Traceback" in err) == (code, True, False), err
        assert not output.exists()
    _ended(_run(str(folder / "scene.tif"), output, "--resume"))
    np.testing.assert_array_equal(_labels(output), _labels(plain))


def _wait(there: Any, run: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not there():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
