"""Features: blended on the patch grid, kept in a store, and asked again with the labels of the scene itself."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import open_clip
import pytest
import rasterio
import shapely
import torch
import zarr
from rasterio.transform import Affine
from safetensors.torch import save_file
from torch.nn import functional as F

from geoovseg import METHODS, Segmenter, encode, merge, open_features, segment
from geoovseg.demo.scenes import render
from geoovseg.errors import InterruptedRunError, OutputError, SceneError, UsageError
from geoovseg.features.ask import CHUNK, CellRows, Words
from geoovseg.features.cells import CellBlend, FeatureBlend
from geoovseg.features.pixels import Asked
from geoovseg.features.store import FeatureStore
from geoovseg.labels.record import RUN_TAG
from geoovseg.models import load
from geoovseg.models.load import load_clip
from geoovseg.ops import upsample
from geoovseg.ops.guided import RADIUS
from geoovseg.run.estimate import dry_run
from geoovseg.scene.scene import DEMO_TAG
from geoovseg.settings import UPSAMPLERS
from geoovseg.vectors.info import info
from geoovseg.vocabulary import read_classes
from geoovseg.windows.plan import REACH, Panel, plan_tiles
from geoovseg.windows.resample import between

Write = Callable[..., str]
Run = Callable[..., tuple[int, str, str]]
GIVEN: dict[str, Any] = {"model": "demo"}
ASKED: dict[str, Any] = {"vocabulary": "demo", "background": "none"}
GIVES = [name for name, card in METHODS.items() if card.gives == "features"]


def _read(path: str | Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read()


def _both(scene: str, folder: Path, given: dict[str, Any], asked: dict[str, Any]) -> None:
    """Labels and confidence of a scene, and of its features, are equal bit for bit, and lie in the same place."""
    own = segment(scene, output=folder / "a.tif", confidence=folder / "a_sure.tif", **{**GIVEN, **given, **asked})
    kept = encode(scene, output=folder / "x.zarr", **{**GIVEN, **given})
    made = segment(kept.features, output=folder / "b.tif", confidence=folder / "b_sure.tif", **{**GIVEN, **asked})
    for one, other in ((own.labels, made.labels), (own.confidence, made.confidence)):
        assert one is not None
        assert other is not None
        with rasterio.open(one) as a, rasterio.open(other) as b:
            np.testing.assert_array_equal(a.read(), b.read())
            assert (a.crs, a.transform, a.shape) == (b.crs, b.transform, b.shape)


@pytest.fixture
def small(write_raster: Write) -> str:
    return write_raster(render(1003, 150, 203)[0], tags={DEMO_TAG: "1003"})


@pytest.mark.parametrize("method", GIVES)
def test_features_asked_again_give_the_labels_of_the_scene(small: str, tmp_path: Path, method: str) -> None:
    needed = {"vfm": {"vfm": "demo"}, "regions": {"regions": "felzenszwalb"}}
    own = {name: value for need in METHODS[method].needs for name, value in needed.get(need, {}).items()}
    _both(small, tmp_path, {"method": method, **own}, ASKED)


SCENES: dict[str, dict[str, Any]] = {
    "south up": {"transform": Affine(0.5, 0, 480_000, 0, 0.5, 5_460_000)},
    "rotated": {"transform": Affine.translation(480_000, 5_460_000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.5)},
    "degrees": {"crs": "EPSG:4326", "transform": Affine(5e-6, 0, 8.7, 0, -5e-6, 49.2)},
    "nowhere": {"crs": None, "transform": Affine.identity()},
    "nodata": {"nodata": 0},
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("upsample", UPSAMPLERS)
@pytest.mark.parametrize("kind", SCENES)
def test_wherever_a_scene_lies_its_features_do(write_raster: Write, tmp_path: Path, kind: str, upsample: str) -> None:
    data = render(1003, 150, 203)[0]
    data[:, :60, :90] = 0
    scene = write_raster(data, tags={DEMO_TAG: "1003"}, **SCENES[kind])
    _both(scene, tmp_path, {}, {**ASKED, "upsample": upsample})


@pytest.mark.parametrize("upsample", UPSAMPLERS)
def test_features_of_sixteen_bits(write_raster: Write, tmp_path: Path, upsample: str) -> None:
    scene = write_raster(render(1003, 150, 203)[0].astype(np.uint16) * 37, tags={DEMO_TAG: "1003"})
    _both(scene, tmp_path, {}, {**ASKED, "upsample": upsample})


def test_guided_looks_at_the_scene_where_it_was_and_as_it_was(small: str, tmp_path: Path) -> None:
    """Both may be moved together; a scene that is gone, or another one, is told."""
    (tmp_path / "here").mkdir()
    scene, asked = tmp_path / "here" / "scene.tif", {**GIVEN, **ASKED, "upsample": "guided", "overwrite": True}
    shutil.copyfile(small, scene)
    encode(scene, **GIVEN)
    own = _read(segment(scene, output=tmp_path / "a.tif", **asked).labels)
    moved = (tmp_path / "here").rename(tmp_path / "there")
    store = moved / "scene_features.zarr"
    np.testing.assert_array_equal(own, _read(segment(store, output=tmp_path / "b.tif", **asked).labels))
    with rasterio.open(moved / "scene.tif", "r+") as dst:
        dst.write(255 - dst.read())
    with pytest.raises(UsageError, match=r"is not the scene that .* was made of, or has changed since; add --upsample"):
        segment(store, output=tmp_path / "c.tif", **asked)
    (moved / "scene.tif").unlink()
    with pytest.raises(UsageError, match=r"scene.tif.*guided looks at the colours of the scene of"):
        segment(store, output=tmp_path / "c.tif", **asked)
    assert len(np.unique(own)) > 2
    segment(store, output=tmp_path / "c.tif", **{**asked, "upsample": "bilinear"})


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"gsd": 1.0}, {}),
        ({"max_memory": 1}, {}),
        ({}, {"max_memory": 1}),
        ({}, {"max_memory": 1, "upsample": "guided"}),
        ({"gsd": 1.0}, {"upsample": "guided"}),
        ({}, {"aoi": "480010,5459960,480050,5459990", "upsample": "guided"}),
        ({"bands": (3, 2, 1), "scale": "20,180"}, {"upsample": "guided", "threshold": 0.4}),
        ({"stride": 56, "tile": 112}, {"threshold": 0.4}),
        ({"batch_size": 3}, {"background": "auto", "templates": "plain"}),
        ({"settings": {"class_token_weight": -0.1}}, {"settings": {"scale": 20.0}}),
    ],
    ids=[
        "coarser",
        "panels, encoding",
        "panels, asking",
        "panels, guided",
        "coarser, guided",
        "area, guided",
        "bands and scale, guided",
        "threshold",
        "background",
        "settings",
    ],
)
def test_choices_above_and_below_features(
    write_raster: Write, tmp_path: Path, given: dict[str, Any], asked: dict[str, Any]
) -> None:
    scene = write_raster(render(1003, 300, 620)[0][:, :200], tags={DEMO_TAG: "1003"})
    own = segment(scene, output=tmp_path / "a.tif", **{**GIVEN, **ASKED, **given, **asked, **_merged(given, asked)})
    kept = encode(scene, output=tmp_path / "x.zarr", **{**GIVEN, **given})
    made = segment(kept.features, output=tmp_path / "b.tif", **{**GIVEN, **ASKED, **asked})
    np.testing.assert_array_equal(_read(own.labels), _read(made.labels))


def _merged(given: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    both = {**given.get("settings", {}), **asked.get("settings", {})}
    return {"settings": both} if both else {}


@pytest.mark.parametrize(
    ("aoi", "outside"), [("480010,5459960,480050,5459990", False), ("480001,5459930,480020,5459935", True)]
)
def test_features_are_asked_in_an_area(small: str, tmp_path: Path, aoi: str, outside: bool) -> None:
    own = segment(small, output=tmp_path / "a.tif", aoi=aoi, **GIVEN, **ASKED)
    kept = encode(small, output=tmp_path / "x.zarr", **GIVEN)
    made = segment(kept.features, output=tmp_path / "b.tif", aoi=aoi, **ASKED)
    np.testing.assert_array_equal(_read(own.labels), _read(made.labels))
    assert (own.outside_windows > 0) == outside


@pytest.fixture(scope="module")
def tall(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A scene of several parts, of features and of labels."""
    path = tmp_path_factory.mktemp("tall") / "scene.tif"
    place = rasterio.transform.from_origin(480_000, 5_460_000, 0.5, 0.5)
    profile = {"driver": "GTiff", "height": 1300, "width": 130, "count": 3, "dtype": "uint8", "crs": "EPSG:32632"}
    with rasterio.open(path, "w", transform=place, **profile) as dst:
        dst.write(np.concatenate([render(1000 + n, 512, 130)[0] for n in range(3)], axis=1)[:, :1300])
        dst.update_tags(**{DEMO_TAG: "1000"})
    return str(path)


@pytest.fixture(scope="module")
def kept(tall: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its features."""
    path = tmp_path_factory.mktemp("kept") / "x.zarr"
    encode(tall, output=path, stride=112, **GIVEN)
    return path


def _same_store(one: Path, other: Path) -> None:
    first, second = FeatureStore(one), FeatureStore(other)
    whole = (0, first.about.rows), Panel(0, first.about.columns)
    for (_, a), (_, b) in zip(first.rows(*whole), second.rows(*whole), strict=True):
        np.testing.assert_array_equal(a, b)
    pixels = (0, first.about.height), Panel(0, first.about.width)
    np.testing.assert_array_equal(first.valid(*pixels), second.valid(*pixels))


def test_the_mask_is_read_as_it_was_kept_whatever_its_rows(kept: Path, tmp_path: Path) -> None:
    """Rows of chunks are 512 pixels high; one is held at a time, for one panel."""
    changed = tmp_path / "x.zarr"
    shutil.copytree(kept, changed)
    mask = np.random.default_rng(0).integers(0, 2, (1300, 130), np.uint8)
    zarr.open_group(changed, mode="r+")["valid"][:] = mask
    store = FeatureStore(changed)
    wide, narrow = (0, 130), (7, 20)
    for (first, end), (left, width) in (
        ((0, 3), wide), ((500, 530), wide), ((500, 530), narrow), ((40, 1300), narrow), ((0, 1), narrow)
    ):  # fmt: skip
        expected = mask[first:end, left : left + width].astype(bool)
        np.testing.assert_array_equal(store.valid((first, end), Panel(left, width)), expected)


def test_shards_of_an_encoding_are_merged(tall: str, kept: Path, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        parts = encode(tall, output=tmp_path / "x.zarr", shard=(number, 3), stride=112, **GIVEN).parts_dir
    assert not (tmp_path / "x.zarr").exists()
    assert merge(str(parts)).labels == str(tmp_path / "x.zarr")
    _same_store(tmp_path / "x.zarr", kept)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zarr"]


@pytest.mark.trial
def test_two_workers_encode_as_one_and_ask_as_one(tall: str, kept: Path, tmp_path: Path) -> None:
    """In one go, by the same two processes."""
    given = {**GIVEN, **ASKED, "stride": 112}
    own = segment(tall, output=tmp_path / "a.tif", **given)
    made = segment(tall, output=tmp_path / "b.tif", features=tmp_path / "x.zarr", workers=2, **given)
    _same_store(tmp_path / "x.zarr", kept)
    np.testing.assert_array_equal(_read(own.labels), _read(made.labels))


def test_an_encoding_that_was_stopped_goes_on(tall: str, kept: Path, tmp_path: Path) -> None:
    asked: list[int] = []

    def stop() -> int | None:
        asked.append(1)
        return 2 if (tmp_path / "x.zarr.parts").exists() and list(tmp_path.glob("x.zarr.parts/part_*.json")) else None

    with pytest.raises(InterruptedRunError, match="1 of 3 parts"):
        encode(tall, output=tmp_path / "x.zarr", stop=stop, stride=112, **GIVEN)
    with pytest.raises(SceneError, match="holds no finished features; make them, or finish them with --resume"):
        (tmp_path / "y.zarr").mkdir()
        segment(tmp_path / "y.zarr", **ASKED)
    encode(tall, output=tmp_path / "x.zarr", resume=True, stride=112, **GIVEN)
    _same_store(tmp_path / "x.zarr", kept)
    assert encode(tall, output=tmp_path / "x.zarr", resume=True, stride=112, **GIVEN).was_there
    with pytest.raises(OutputError, match="is not what this run would make: stride was 112 and is now 56"):
        encode(tall, output=tmp_path / "x.zarr", resume=True, **GIVEN)
    with pytest.raises(OutputError, match="add --overwrite"):
        encode(tall, output=tmp_path / "x.zarr", stride=112, **GIVEN)


@pytest.mark.parametrize("how", [{"shard": (1, 1)}, {}], ids=["shard", "resumed"])
def test_features_are_asked_as_scenes_are_segmented(tall: str, kept: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    own = segment(tall, output=tmp_path / "a.tif", stride=112, **GIVEN, **ASKED)
    asked = {**ASKED, "output": tmp_path / "b.tif"}
    if not how:
        with pytest.raises(InterruptedRunError):
            segment(kept, **asked, stop=lambda: 2 if list(tmp_path.glob("b.tif.parts/part_*.json")) else None)
        how = {"resume": True}
    made = segment(kept, **asked, **how)
    labels = merge(made.parts_dir).labels if made.parts_dir else made.labels
    np.testing.assert_array_equal(_read(own.labels), _read(labels))


@pytest.fixture
def patch_14(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A tiny random model with patches of 14 pixels."""
    torch.manual_seed(0)
    vision = {"image_size": 56, "layers": 12, "width": 24, "head_width": 8, "patch_size": 14}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    clip = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text).eval().requires_grad_(False)
    tokenize = open_clip.get_tokenizer("ViT-B-16")
    monkeypatch.setattr(load, "_architecture", lambda card: (copy.deepcopy(clip), tokenize))
    load_clip.cache_clear()
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, tmp_path / "w.safetensors")
    return f"ViT-B-16@{tmp_path / 'w.safetensors'}"


def test_patches_of_fourteen_pixels(write_raster: Write, tmp_path: Path, patch_14: str) -> None:
    scene = write_raster(np.random.default_rng(0).integers(0, 255, (3, 99, 131), dtype=np.uint8))
    _both(scene, tmp_path, {"model": patch_14}, {"classes": "road,water,tree", "background": "none", "model": patch_14})


# What is asked, and what cannot be.


def test_words_that_are_known_need_no_weights(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment(kept, "road,water", output=tmp_path / "a.tif", background="none")
    monkeypatch.setattr("geoovseg.run.asker.load_whole", lambda card: pytest.fail("weights were loaded"))
    monkeypatch.setattr("geoovseg.run.predictor.load_clip", lambda *given: pytest.fail("weights were loaded"))
    segment(kept, "water,road", output=tmp_path / "b.tif", background="none")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "clip"}, "--method clip: the features in .* were made with segearth"),
        ({"model": "ViT-L-14/openai"}, "--model ViT-L-14/openai: the features in .* were made with demo"),
        ({"gsd": 2.0}, "--gsd 2.0: the features"),
        ({"stride": 56}, "--stride 56: the features in .* were made with 112"),
        ({"speed": "fast"}, "--speed fast: the features in .* are of windows 112 pixels apart"),
        ({"settings": {"residual": True}}, "--set residual=True: the features"),
        ({"upsample": "jbu_stack"}, "--upsample jbu_stack sees through the model"),
    ],
)
def test_what_decided_features_cannot_be_asked_otherwise(kept: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        segment(kept, **ASKED, **given)


def test_what_is_asked_as_it_was_encoded_is_taken(kept: Path, tmp_path: Path) -> None:
    segment(kept, output=tmp_path / "a.tif", method="segearth", model="demo", stride=112, **ASKED)


@pytest.mark.parametrize("method", ["resclip", "coninfer"])
def test_a_method_of_scores_has_no_features_to_keep(small: str, tmp_path: Path, method: str) -> None:
    own = {"vfm": "demo"} if method == "coninfer" else {}
    with pytest.raises(UsageError, match=r"gives scores of words and no features; these give some: clip, maskclip"):
        encode(small, output=tmp_path / "x.zarr", method=method, **own, **GIVEN)
    assert not list(tmp_path.glob("x.zarr*"))


@pytest.mark.parametrize("settings", [{"denoise": 0.5}, {"smooth": 0.5}])
def test_a_setting_that_is_not_linear_in_the_words_gives_scores(
    small: str, tmp_path: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="as it is set, gives scores"):
        encode(small, output=tmp_path / "x.zarr", method="maskclip", settings=settings, **GIVEN)


def test_features_are_kept_on_the_way(small: str, tmp_path: Path, geoovseg: Run) -> None:
    own = segment(small, output=tmp_path / "a.tif", confidence=tmp_path / "a_sure.tif", **GIVEN, **ASKED)
    words = ["--vocabulary", "demo", "--background", "none", "--model", "demo", "--json"]
    code, out, err = geoovseg("segment", small, *words, "--features", "-o", tmp_path / "b.tif", "--confidence")
    assert code == 0, err
    said = json.loads(out)
    assert (said["features"], said["scene"]) == (str(tmp_path / "scene_features.zarr"), small)
    assert said["windows"] == own.windows
    np.testing.assert_array_equal(_read(tmp_path / "b.tif"), _read(own.labels))
    np.testing.assert_array_equal(_read(tmp_path / "b_confidence.tif"), _read(str(own.confidence)))
    code, out, err = geoovseg("segment", small, "-c", "road", "--model", "demo", "--features", "-o", tmp_path / "c.tif")
    assert code == 0, err
    assert "keeping features" not in err
    for name in ("d", "e"):  # named, and there the second time
        given = "--features", tmp_path / "own.zarr", "-o", tmp_path / f"{name}.tif"
        code, out, err = geoovseg("segment", small, "-c", "road", "--model", "demo", *given)
        assert code == 0, err
        assert ("keeping features" in err) == (name == "d")
    assert not list((tmp_path / "own.zarr").glob("*.zarr"))
    code, out, err = geoovseg("segment", small, *words, "--features", "-o", tmp_path / "b.tif")
    assert code == 1
    assert "b.tif exists" in out


def test_features_are_read_asked_and_compared_from_python(small: str, tmp_path: Path) -> None:
    pytest.importorskip("xarray")
    found = open_features(encode(small, output=tmp_path / "x.zarr", method="clip", **GIVEN).features)
    with rasterio.open(small) as src:
        assert found.crs == src.crs
        assert found.transform == src.transform @ Affine.scale(8)
    rows, columns, depth = found.shape
    assert found.read().shape == (rows, columns, depth)
    np.testing.assert_array_equal(found.read(slice(3, 5), slice(-2, None)), found.read()[3:5, -2:])
    scores = found.ask("tree,road=street+road", background="none")
    assert scores.dims == ("class", "y", "x")
    assert list(scores["class"].values) == ["tree", "road"]
    x, y = found.transform @ (6.5, 4.5)
    assert (float(scores["x"][6]), float(scores["y"][4])) == (x, y)
    like = found.similar([(x, y)])
    assert like.argmax(...) == {"x": 6, "y": 4}
    assert float(like.max()) == pytest.approx(1, abs=1e-3)
    vector = found.read()[4, 6].astype(np.float64)
    other = found.read()[9, 2].astype(np.float64)
    cosine = vector @ other / np.linalg.norm(vector) / np.linalg.norm(other)
    assert float(like[9, 2]) == pytest.approx(cosine, abs=1e-4)
    for wrong in ([], [(0.0, 0.0)]):
        with pytest.raises(UsageError):
            found.similar(wrong)
    with pytest.raises(UsageError, match="is no part of"):
        found.read(slice(5, 5))


# A store that is not as it was written.


@pytest.fixture
def copied(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "x.zarr"))


@pytest.mark.parametrize("name", ["features/c/1/0/0", "valid/c/1/0"])
@pytest.mark.parametrize("damage", ["gone", "a bit", "cut"])
def test_a_damaged_chunk_is_named(copied: Path, tmp_path: Path, name: str, damage: str) -> None:
    chunk = copied / name
    content = bytearray(chunk.read_bytes())
    if damage == "gone":
        chunk.unlink()
    elif damage == "cut":
        chunk.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 4
        chunk.write_bytes(content)
    with pytest.raises(SceneError, match=f"x.zarr is damaged: chunk {name}: .*; encode the scene anew"):
        segment(copied, output=tmp_path / "a.tif", **ASKED)
    assert not (tmp_path / "a.tif").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.clear(),
        lambda said: said["geoovseg"].update(version=99),
        lambda said: said["geoovseg"].update(rows=7),
        lambda said: said["geoovseg"].pop("cell"),
        lambda said: said["geoovseg"].update(transform=[1]),
        lambda said: said.update(geoovseg=3),
    ],
)
def test_a_store_that_is_none_is_told(copied: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    said = json.loads((copied / "zarr.json").read_text())
    change(said["attributes"])
    (copied / "zarr.json").write_text(json.dumps(said))
    with pytest.raises(SceneError):
        segment(copied, **ASKED)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_other_programs_know_the_place_of_features(tall: str, kept: Path) -> None:
    xarray, _ = pytest.importorskip("xarray", minversion="2024.10"), pytest.importorskip("rioxarray")
    with rasterio.open(tall) as src, xarray.open_zarr(kept) as found:
        assert (found.rio.crs, found.rio.transform(), found.rio.bounds()) == (src.crs, src.transform, tuple(src.bounds))
        assert found["features"].dims == ("cell_y", "cell_x", "feature")
        assert bool((found["valid"] == 1).all())


def test_models_are_loaded_once_for_many_scenes(
    small: str, tmp_path: Path, geoovseg: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geoovseg.run import worker

    shutil.copy(small, tmp_path / "other.tif")
    loads, usual = [], worker.load_predictor
    monkeypatch.setattr(worker, "load_predictor", lambda *given: loads.append(1) or usual(*given))
    code, out, err = geoovseg("encode", small, tmp_path / "other.tif", "--model", "demo", "-o", f"{tmp_path}/kept/")
    assert code == 0, err
    assert [Path(line).name for line in out.splitlines()] == ["scene_features.zarr", "other_features.zarr"]
    assert len(loads) == 1


def test_an_estimate_needs_no_cache(small: str, tmp_path: Path, geoovseg: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    monkeypatch.setenv("GEOOVSEG_CACHE", str(tmp_path / "cache"))
    code, _, err = geoovseg("encode", small, "--model", "demo", "--tile", "64", "--dry-run")
    assert code == 0, err


def test_the_command_line_encodes_and_asks(small: str, tmp_path: Path, geoovseg: Run) -> None:
    code, out, err = geoovseg("encode", small, "--model", "demo", "--dry-run", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["megabytes"] == round(2 * said["rows"] * said["columns"] * said["depth"] / 1e6, 1)
    code, out, err = geoovseg("encode", small, "--model", "demo")
    assert code == 0, err
    assert out.strip() == str(tmp_path / "scene_features.zarr")
    assert "ask them: geoovseg segment" in err
    code, out, err = geoovseg("segment", out.strip(), "--vocabulary", "demo")
    assert code == 0, err
    assert out.strip() == str(tmp_path / "scene_labels.tif")
    assert "in features of segearth with demo" in err


# Its pieces.


def _plan(height: int = 300, width: int = 420) -> Any:
    return plan_tiles(height, width, tile=64, stride=32, patch=16, aligned=True)


@pytest.mark.parametrize("side", [1, 2, 7, 8, 14, 16])
def test_pixels_lie_between_the_cells_that_torch_takes(side: int) -> None:
    cells = torch.rand(1, 1, 9)
    wide = F.interpolate(cells, scale_factor=float(side), mode="linear", align_corners=False)[0, 0]
    found = between((0, 9 * side), side, 9, "cpu")
    mixed = cells[0, 0, found.lower] * (1 - found.weight) + cells[0, 0, found.upper] * found.weight
    torch.testing.assert_close(mixed, wide, rtol=1e-5, atol=1e-6)
    later = between((5, 9 * side), side, 9, "cpu")
    assert torch.equal(later.weight, found.weight[5:])


def _pixels(
    plan: Any,
    panel: Panel,
    span: tuple[int, int],
    features: torch.Tensor,
    words: Words,
    step: int,
    picture: tuple[torch.Tensor, torch.Tensor] | None = None,
    best: bool = False,
) -> torch.Tensor:
    cells, pixels = Asked(words, best, None if picture is None else _reader(*picture)).of(plan, 16, panel, span)
    first, end = cells.span
    columns = slice(cells.panel.col_off, cells.panel.col_off + cells.panel.width)
    found = []
    for row in range(first, end, step):
        rows = features[:, row : min(row + step, end), columns]
        found += list(pixels.add(CellRows(row, rows.shape[1], rows)))
    assert [rows.row_off for rows in found] == list(np.cumsum([span[0], *(rows.count for rows in found[:-1])]))
    if best:
        return torch.cat([rows.best for rows in found if rows.best is not None])
    return torch.cat([rows.scores for rows in found if rows.scores is not None], 1)


def _reader(pixels: torch.Tensor, valid: torch.Tensor) -> Any:
    def read(window: Any) -> Any:
        rows, columns = (
            slice(window.row_off, window.row_off + window.height),
            slice(window.col_off, window.col_off + window.width),
        )
        assert rows.stop <= valid.shape[0]
        assert columns.stop <= valid.shape[1]
        return pixels[:, rows, columns].numpy(), valid[rows, columns].numpy()

    return read


def _picture(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Something to see on 300 x 420 pixels, with a hole in it."""
    rng = torch.Generator().manual_seed(seed)
    coarse = F.interpolate(torch.rand(1, 3, 20, 28, generator=rng), (300, 420), mode="bicubic")[0]
    pixels = (coarse + 0.05 * torch.randn(3, 300, 420, generator=rng)).clamp(0, 1)
    valid = torch.ones(300, 420, dtype=torch.bool)
    valid[90:140, 200:333] = False
    return pixels, valid


@pytest.mark.parametrize("best", [False, True], ids=["scores", "best"])
@pytest.mark.parametrize("guided", [False, True], ids=["bilinear", "guided"])
@pytest.mark.parametrize("unseen", [False, True])
def test_pixels_do_not_depend_on_how_the_scene_is_cut(unseen: bool, guided: bool, best: bool) -> None:
    plan, picture = _plan(), _picture() if guided else None
    features = torch.randn(32, 19, 27).half()
    if unseen:
        features[:, 4:9, 3:11] = 0
    words = Words(F.normalize(torch.randn(7, 32), dim=-1), (2, 1, 4))
    whole = _pixels(plan, Panel(0, 420), (0, 300), features, words, 19, picture, best)
    assert whole.shape[-2:] == (300, 420)
    for panel, span, step in (
        (Panel(100, 64), (0, 300), 2),
        (Panel(0, 420), (77, 203), 3),
        (Panel(356, 64), (128, 300), 1),
    ):
        part = _pixels(plan, panel, span, features, words, step, picture, best)
        assert torch.equal(part, whole[..., span[0] : span[1], panel.col_off : panel.col_off + panel.width])


@pytest.mark.parametrize("classes", [1, 2, 3, 9, 40, 300])
@pytest.mark.parametrize("guided", [False, True], ids=["bilinear", "guided"])
def test_the_best_class_is_that_of_all_scores(classes: int, guided: bool) -> None:
    """Also of classes with equal scores, where the first one counts, and around cells that no window was on."""
    plan, picture = _plan(), _picture() if guided else None
    rng = torch.Generator().manual_seed(classes)
    features = F.interpolate(torch.randn(1, 32, 7, 9, generator=rng), (19, 27), mode="bilinear")[0].half()
    features[:, 4:9, 3:11] = 0
    words = F.normalize(torch.randn(classes, 32, generator=rng), dim=-1)
    words[classes // 2] = words[0]
    given = (plan, Panel(0, 420), (0, 300), features, Words(words, (1,) * classes), 5, picture)
    scores, best = _pixels(*given), _pixels(*given, best=True)
    assert len(best.unique()) > min(classes // 4, 5)
    assert torch.equal(best.long(), scores.max(0).indices)


def test_guided_pixels_of_a_scene_are_those_of_one_window() -> None:
    """What a whole scene is given in rows is what its scores get as one window, but at the scene's edge."""
    plan, pixels = _plan(304, 432), _picture()[0]
    pixels = F.pad(pixels, (0, 12, 0, 4), mode="reflect")
    features, words = torch.randn(32, 19, 27).half(), Words(F.normalize(torch.randn(3, 32), dim=-1), (1, 1, 1))
    found = _pixels(plan, Panel(0, 432), (0, 304), features, words, 4, (pixels, torch.ones(304, 432, dtype=torch.bool)))
    expected = upsample.guided(words.class_scores(features, 0)[None], pixels[None])[0]
    inside = (slice(None), slice(48, -48), slice(48, -48))
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-4, atol=1e-5)


def test_guided_pixels_know_nothing_of_colours_without_data() -> None:
    """What stands in a file where there is no data changes nothing."""
    plan, (pixels, valid) = _plan(), _picture()
    features, words = torch.randn(32, 19, 27).half(), Words(F.normalize(torch.randn(3, 32), dim=-1), (1, 1, 1))
    given = (plan, Panel(0, 420), (0, 300), features, words, 4)
    found = [_pixels(*given, (torch.where(valid, pixels, dark), valid))[:, valid] for dark in (0.0, 1.0)]
    assert torch.equal(*found)


def test_pixels_are_bilinear_between_cells() -> None:
    plan, features = _plan(), torch.randn(32, 19, 27).half()
    words = Words(F.normalize(torch.randn(3, 32), dim=-1), (1, 1, 1))
    scores = torch.einsum("drc,qd->qrc", features.float(), words.text)
    expected = F.interpolate(scores[None], scale_factor=16.0, mode="bilinear", align_corners=False)[0]
    found = _pixels(plan, Panel(0, 420), (0, 300), features, words, 5)
    torch.testing.assert_close(found, expected[:, :300, :420], rtol=1e-4, atol=1e-5)


def test_cells_that_no_window_was_on_do_not_count() -> None:
    plan, features = _plan(), torch.ones(4, 19, 27).half()
    features[:, :, 10:] = 0
    words = Words(torch.full((1, 4), 0.5), (1,))
    found = _pixels(plan, Panel(0, 420), (0, 300), features, words, 19)
    np.testing.assert_allclose(found[0, :, : 10 * 16 + 7].numpy(), 2.0, rtol=1e-6)


@pytest.mark.parametrize("groups", [(1,), (5, 6)])
@pytest.mark.parametrize("col_off", [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 5])
def test_a_cell_is_compared_alike_wherever_a_panel_begins(col_off: int, groups: tuple[int, ...]) -> None:
    features = torch.randn(96, 2, 5 * CHUNK).half()
    words = Words(F.normalize(torch.randn(sum(groups), 96), dim=-1), groups)
    whole = words.class_scores(features, 0)
    assert torch.equal(words.class_scores(features[:, 1:, col_off:], col_off), whole[:, 1:, col_off:])


def test_the_blend_of_equal_vectors_is_that_vector() -> None:
    plan = _plan()
    cells = plan.cells(16, Panel(0, 420), (0, 300))
    blend = CellBlend(plan, cells, 8, "cpu")
    vector = F.normalize(torch.randn(8), dim=0)
    found = []
    for window in plan.windows(Panel(0, 420)):
        found += list(blend.add(window, vector[:, None, None].expand(8, 4, 4)))
    found += list(blend.finish())
    features = torch.cat([rows.features for rows in found if rows.features is not None], 1)
    assert features.shape == (8, 19, 27)
    torch.testing.assert_close(features.float(), vector[:, None, None].expand_as(features), rtol=0, atol=5e-4)


@pytest.mark.parametrize("guided", [False, True], ids=["bilinear", "guided"])
def test_the_mask_is_that_of_the_windows_that_were_seen(guided: bool) -> None:
    plan, words = _plan(), Words(torch.ones(1, 8), (1,))
    panel, span = Panel(64, 192), (100, 260)
    asked = Asked(words, read=_reader(*_picture()) if guided else None)
    cells = plan.cells(16, panel, span, asked.reach)
    blend, seen = FeatureBlend(plan, 16, panel, span, asked), np.zeros((400, 500), bool)
    rows = []
    for n, window in enumerate(plan.windows(*cells.pixels)):
        if n % 5 == 3:
            continue
        valid = np.random.default_rng(n).random((64, 64)) > 0.5
        seen[window.row_off : window.row_off + 64, window.col_off : window.col_off + 64] |= valid
        rows += list(blend.add([window], torch.ones(1, 8, 4, 4), torch.from_numpy(valid)[None]))
    rows += list(blend.finish())
    found = np.concatenate([r.valid.expand(-1, 192).numpy() for r in rows])
    np.testing.assert_array_equal(found, seen[100:260, 64:256])


@pytest.mark.parametrize(("stride", "near"), [(50, "48 or --stride 64"), (7, "16")])
def test_windows_of_features_lie_on_whole_patches(small: str, stride: int, near: str) -> None:
    with pytest.raises(UsageError, match=f"--stride {stride} is no multiple of the model's patch of 8 pixels"):
        segment(small, stride=stride, **GIVEN, **ASKED)


def test_memory_of_features_does_not_grow_with_the_words(small: str) -> None:
    from geoovseg.run.worker import Worker
    from geoovseg.settings import Settings
    from geoovseg.vocabulary import read_classes

    settings = Settings(model="demo", background="none", method="clip")
    few, many = (
        Worker(read_classes(",".join(f"word {n}" for n in range(count)), None), settings).job(small, settings).layout
        for count in (3, 60)
    )
    assert many.memory_mb < 1.35 * few.memory_mb


def _marked(folder: Path, scene: str, truth: np.ndarray, code: int, crs: str = "EPSG:4326") -> Path:
    """Twelve points on pixels of a class, in another coordinate system."""
    ys, xs = np.nonzero(truth == code)
    some = np.random.default_rng(code).choice(len(ys), 12)
    with rasterio.open(scene) as src:
        points = [shapely.Point(*(src.transform * (xs[n] + 0.5, ys[n] + 0.5))) for n in some]
        table = geopandas.GeoDataFrame(geometry=points, crs=src.crs)
    table.to_crs(crs).to_file(folder / f"places_{code}.gpkg")
    return folder / f"places_{code}.gpkg"


def test_classes_by_example_are_where_their_places_are(write_raster: Write, tmp_path: Path) -> None:
    """Each class is the mean of features at twelve points; nothing else is known of it."""
    pixels, truth = render(1003, 256, 256)
    scene = write_raster(pixels, tags={DEMO_TAG: "1003"})
    kept = encode(scene, output=tmp_path / "x.zarr", **GIVEN).features
    codes = [int(code) for code in np.argsort(-np.bincount(truth.ravel(), minlength=9))[:3]]
    classes = {f"kind {code}": f"@{_marked(tmp_path, scene, truth, code)}" for code in codes}
    found = _read(segment(kept, classes, output=tmp_path / "a.tif", background="none").labels)[0]
    right = [(found[truth == code] == n).mean() for n, code in enumerate(codes, start=1)]
    assert min(right) > 0.9
    with rasterio.open(tmp_path / "a.tif") as src:
        record = src.tags()[RUN_TAG]
    assert str(tmp_path) not in record
    assert f"@places_{codes[0]}.gpkg (" in record
    with pytest.raises(UsageError, match=r"places_.*gpkg: only kept features are asked by example"):
        segment(scene, classes, output=tmp_path / "b.tif", **GIVEN)
    with pytest.raises(UsageError, match="only kept features are asked by example"):
        Segmenter(classes, **GIVEN).predict(pixels)
    both = segment(scene, classes, output=tmp_path / "c.tif", features=kept, background="none", **GIVEN)
    np.testing.assert_array_equal(_read(both.labels)[0], found)


def test_an_example_is_the_mean_vector_of_what_is_marked(kept: Path, tmp_path: Path) -> None:
    """A polygon marks the cells whose centres it holds, a point that around it; both as one word."""
    features = open_features(kept)
    vectors = features.read(slice(3, 6), slice(2, 4)).reshape(-1, features.shape[2]).astype(np.float64)
    left, top = features.transform * (2, 3)
    right, bottom = features.transform * (4, 6)
    box = shapely.box(left, bottom, right, top)
    mean = vectors.mean(0) / np.linalg.norm(vectors.mean(0))
    whole = features.read().astype(np.float64)
    expected = whole @ mean / np.maximum(np.linalg.norm(whole, axis=-1), 1e-9)
    np.testing.assert_allclose(features.similar([box]).values, expected, atol=1e-5)
    centres = [features.transform * (column + 0.5, row + 0.5) for row in (3, 4, 5) for column in (2, 3)]
    np.testing.assert_allclose(features.similar(centres).values, expected, atol=1e-5)
    geopandas.GeoDataFrame(geometry=[box], crs=features.crs).to_file(tmp_path / "box.gpkg")
    np.testing.assert_allclose(features.similar(tmp_path / "box.gpkg").values, expected, atol=1e-5)
    with pytest.raises(UsageError, match="marks no place within the scene"):
        features.similar([(0.0, 0.0)])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("solar panel=@a.gpkg", ("@a.gpkg",)),
        ("solar panel: @a.gpkg", ("@a.gpkg",)),
        ("x=@a.gpkg+roof", ("@a.gpkg", "roof")),
    ],
)
def test_places_are_words_of_a_class(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    entry = read_classes(text).classes[0]
    assert (entry.name, entry.words) == (text[:11] if len(words) == 1 else "x", words)
    (tmp_path / "list.txt").write_text("solar panel: @a.gpkg, roof\n")
    assert read_classes(f"@{tmp_path / 'list.txt'}").classes[0].words == (f"@{tmp_path / 'a.gpkg'}", "roof")


def test_scores_are_a_band_a_class_that_sum_to_one(small: str, tmp_path: Path) -> None:
    """Of a scene and of its features; the best of them is the confidence, and its class the label."""
    given = {"classes": "road,water,tree", "background": "auto", "confidence": "beside", "scores": "beside"}
    own = segment(small, output=tmp_path / "a.tif", **given, **GIVEN)
    kept = encode(small, output=tmp_path / "x.zarr", **GIVEN)
    made = segment(kept.features, output=tmp_path / "b.tif", **given)
    assert own.scores == str(tmp_path / "a_scores.tif")
    with rasterio.open(own.scores) as src:
        scores, valid = src.read().astype(int), src.dataset_mask() > 0
        assert (src.descriptions, src.scales) == (("background", "road", "water", "tree"), (1 / 250,) * 4)
        assert (src.nodata, src.crs, src.tags(ns="IMAGE_STRUCTURE")["LAYOUT"]) == (255, "EPSG:32632", "COG")
    np.testing.assert_array_equal(scores, _read(str(made.scores)))
    assert np.abs(scores.sum(0)[valid] - 250).max() <= 2
    np.testing.assert_array_equal(scores.max(0), _read(str(own.confidence))[0])
    labels = _read(own.labels)[0]
    assert (np.take_along_axis(scores, labels[None].astype(int), 0)[0] == scores.max(0))[valid].all()
    found = info(own.scores)
    assert (found.kind, list(found.scores)) == ("scores", ["background", "road", "water", "tree"])
    assert found.scores["road"]["mean"] == pytest.approx(scores[1][valid].mean() / 250)


def test_scores_of_shards_are_merged_and_finished_ones_known(tall: str, tmp_path: Path) -> None:
    given = {**GIVEN, **ASKED, "stride": 112, "scores": "beside"}
    whole = segment(tall, output=tmp_path / "a.tif", **given)
    for number in (1, 2):
        parts = segment(tall, output=tmp_path / "b.tif", shard=(number, 2), **given).parts_dir
    merge(str(parts))
    np.testing.assert_array_equal(_read(str(whole.scores)), _read(tmp_path / "b_scores.tif"))
    assert segment(tall, output=tmp_path / "b.tif", skip_finished=True, **given).was_there
    with pytest.raises(UsageError, match="outputs need names of their own"):
        segment(tall, output=tmp_path / "b.tif", **{**given, "scores": tmp_path / "b.tif"})


def test_a_dry_run_of_features_needs_no_model(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoovseg.run.asker.load_whole", lambda card: pytest.fail("weights were loaded"))
    found = dry_run(kept, "a word that nobody ever read", output=tmp_path / "a.tif")
    assert (found.windows, found.batches, found.parts) == (0, 0, 3)
    assert 0 < found.estimated_seconds < 60
    assert "no window to see" in found.to_text()


def test_a_dry_run_says_what_a_run_that_keeps_features_does(tall: str, kept: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"output": tmp_path / "a.tif", **GIVEN, **ASKED}
    area = {"aoi": "480000,5459990,480010,5460000", "aoi_crs": "EPSG:32632", "crop": True}
    whole = dry_run(tall, features=tmp_path / "x.zarr", **given)
    assert dry_run(tall, features=tmp_path / "x.zarr", **given, **area).batches == whole.batches > 0
    assert dry_run(tall, features=kept, **given, **area).windows == 0
    with pytest.raises(UsageError, match="--stride 56: the features"):
        dry_run(tall, features=kept, **given, stride=56)
    assert dry_run(tall, features=kept, **given, stride=56, overwrite=True).batches == whole.batches
    for wrong, said in (({"aoi": "0,0,1,1"}, "--aoi|area"), ({"shard": (1, 2)}, "--features keeps all of a scene")):
        with pytest.raises(UsageError, match=said):
            dry_run(tall, features=tmp_path / "x.zarr", **{**given, **wrong})


def test_an_area_elsewhere_is_told_before_features_are_kept(small: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        segment(small, output=tmp_path / "a.tif", features=tmp_path / "x.zarr", aoi="0,0,1,1", **GIVEN, **ASKED)
    assert not list(tmp_path.glob("x.zarr*"))


def test_features_that_are_others_are_replaced_by_name(small: str, kept: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose another name with --features"):
        segment(small, output=tmp_path / "a.tif", features=kept, **GIVEN, **ASKED)


def test_a_folder_of_stores_is_many_scenes(kept: Path, tmp_path: Path, geoovseg: Run) -> None:
    for name in ("a", "b"):
        shutil.copytree(kept, tmp_path / "in" / f"{name}.zarr")
    given = ("-c", "road,water", "--background", "none", "--upsample", "bilinear")
    code, out, err = geoovseg("segment", tmp_path / "in", *given, "-o", f"{tmp_path}/out/")
    assert (code, [Path(line).name for line in out.split()]) == (0, ["a_labels.tif", "b_labels.tif"]), err


def test_encoding_tells_the_next_dry_run_how_fast_it_was(
    tall: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOOVSEG_CACHE", str(tmp_path / "cache"))
    encode(tall, output=tmp_path / "x.zarr", stride=56, **GIVEN)
    assert list((tmp_path / "cache" / "pace").iterdir())


def test_the_reach_is_one_number() -> None:
    assert REACH == RADIUS
