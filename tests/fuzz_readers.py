"""All else that geoovseg reads, with changes: `python tests/fuzz_readers.py FOLDER FIRST END STEP [READER...]`.

As fuzz.py does with scenes: a line of JSON for every reader and number; with KEEP=1 its file stays. What is not read is
refused by an error of ours; where reading means one thing only, that is compared.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import random
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuzz
import geopandas
import numpy as np
import rasterio
import torch
from fuzz import Attempt, Make, Outcome
from rasterio.windows import Window
from safetensors.torch import save_file

from geoovseg import evaluate, merge, vectorize
from geoovseg.errors import GeoOVSegError, GeoOVSegWarning
from geoovseg.evaluation.colours import read_colours
from geoovseg.methods import METHODS
from geoovseg.models.cards import ModelCard
from geoovseg.models.tensors import as_weights, fill, read_state
from geoovseg.models.text import _packed, _unpacked
from geoovseg.prompts import prompts_dir, templates
from geoovseg.run.timings import DAMAGED, PACKAGED, Timings
from geoovseg.scene.area import read_area
from geoovseg.scene.regions import open_regions
from geoovseg.segmenter import segment
from geoovseg.settings import Settings
from geoovseg.vectors.info import info
from geoovseg.vocabulary import read_classes

READ: Outcome = {"outcome": "segmented", "why": ""}
"""Of a file that was read."""
TOKENS = (
    b"NaN", b"-inf", b"1e999", b"-1", b"0", b"99999999999999999999", b"null", b"true", b"{}", b"[]", b'""', b"\0",
    b"\x1b]0;x\x07", b"\xe2\x80\xae", b"\xff\xfe", b"\n\n", b",", b"=", b"+", b"#", b":", b"background", b"{}{}{}",
    b"[" * 5000, b"{" * 200, b"&x;", b"]]>", b"http://127.0.0.1:9/", b"../..", b"/", b"\xc2\xb2", b"\xd9\xa3",
)  # fmt: skip
"""What texts are changed by besides."""
EPSG, SIDE = "EPSG:32632", 48
PLACE = {"crs": EPSG, "transform": fuzz.GRID["transform"]}


@dataclass(frozen=True)
class Reader:
    """One kind of file: sound ones by name, and what is done with a changed one."""

    seeds: Callable[[Path], Mapping[str, bytes]]
    attempt: Attempt
    besides: str = ""
    """a folder of the sound files that goes along; names are within it then"""

    def make(self, folder: Path) -> Make:
        """Write the sound files; returns what writes a changed one."""
        (place := folder / "sound").mkdir(parents=True)
        sound = sorted(_apart(self.seeds, place).items())

        def make(here: Path, number: int) -> Path:
            name, content = sound[number % len(sound)]
            if self.besides:
                shutil.copytree(place / self.besides, here, dirs_exist_ok=True)
            (path := here / name).parent.mkdir(exist_ok=True, parents=True)
            path.write_bytes(changed(content, number))
            return path

        return make


def _apart(seeds: Callable[[Path], Mapping[str, bytes]], place: Path) -> Mapping[str, bytes]:
    """Write sound files in a process of its own: a thread that GDAL starts here is one that children would wait for."""
    kept = place.with_name("sound.pickle")
    if os.fork() == 0:
        try:
            kept.write_bytes(pickle.dumps(seeds(place)))
            os._exit(0)
        finally:
            os._exit(1)
    os.wait()
    return pickle.loads(kept.read_bytes())


def changed(seed: bytes, number: int) -> bytes:
    """A file with one to eight changes, more often few; those of texts also put in, double or swap what means much."""
    chance, found = random.Random(number), bytearray(seed)
    is_text = b"\0" not in seed
    for _ in range(min(8, 1 + int(chance.expovariate(0.7)))):
        at = chance.randrange(len(found)) if found else 0
        if not found or (is_text and chance.random() < 0.6):
            end = at + chance.choice((0, 0, 1, 4, 16))
            found[at:end] = chance.choice(TOKENS) if chance.random() < 0.8 else found[: chance.randrange(64)]
        else:
            at = min(at, chance.choice((64, 512, len(found) - 1)))
            chance.choices(fuzz.CHANGES, fuzz.WEIGHTS)[0](chance, found, min(at, len(found) - 1))
    return bytes(found)


def reading(read: Callable[[Path], Any]) -> Attempt:
    """Read a file; whatever is not refused by an error of ours was read."""

    def attempt(path: Path, output: Path) -> Outcome:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a warning that is not ours would stand in the user's terminal
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            warnings.simplefilter("ignore", GeoOVSegWarning)
            found = read(path)
        return found if isinstance(found, dict) and "outcome" in found else READ

    return attempt


def _texts(*texts: str, suffix: str = ".txt") -> Callable[[Path], dict[str, bytes]]:
    return lambda folder: {f"{n}{suffix}": text.encode() for n, text in enumerate(texts)}


def _shipped(kind: str) -> Callable[[Path], dict[str, bytes]]:
    return lambda folder: {path.name: path.read_bytes() for path in sorted((prompts_dir() / kind).iterdir())}


def _chosen(path: Path) -> None:
    """Settings of every method, as the command line takes them."""
    texts = path.read_text("utf-8", "surrogateescape").split("\n")
    failed = []
    for method in METHODS:
        try:
            Settings(method=method, settings=texts)
        except GeoOVSegError as error:
            failed.append(error)
    if len(failed) == len(METHODS):
        raise failed[0]


def _codes() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.kron(np.arange(36, dtype=np.uint8).reshape(6, 6) % 4, np.ones((8, 8), np.uint8))


def _raster(path: Path, codes: Any, *, palette: bool = True, **more: Any) -> Path:
    profile = {"driver": "GTiff", "height": SIDE, "width": SIDE, "count": 1, "dtype": "uint8", **PLACE}
    with rasterio.open(path, "w", **{**profile, **more}) as dst:
        dst.write(codes, 1)
        if palette:
            dst.write_colormap(1, {n: (60 * n, 9, 200 - 50 * n, 255) for n in range(4)})
    return path


def _polygons() -> geopandas.GeoDataFrame:
    left, top = 480_000, 5_460_000
    boxes = geopandas.points_from_xy([left + 5, left + 15], [top - 5, top - 12]).buffer(4)
    return geopandas.GeoDataFrame({"class_name": ["road", "water"], "n": [1, 2]}, geometry=boxes, crs=EPSG)


KML = """<?xml version="1.0" encoding="UTF-8"?><kml xmlns="http://www.opengis.net/kml/2.2"><Document><Placemark>
<name>road</name><Polygon><outerBoundaryIs><LinearRing><coordinates>8.7,49.2 8.8,49.2 8.8,49.3 8.7,49.3 8.7,49.2
</coordinates></LinearRing></outerBoundaryIs></Polygon></Placemark></Document></kml>"""


def _shapes(folder: Path) -> dict[str, bytes]:
    table, degrees = _polygons(), _polygons().to_crs(4326)
    table.to_file(folder / "shapes.gpkg")
    table.to_file(folder / "shapes.fgb")
    degrees.to_file(folder / "shapes.geojson")
    degrees.to_parquet(folder / "shapes.parquet")
    (folder / "shapes.kml").write_text(KML)
    return {path.name: path.read_bytes() for path in folder.glob("shapes.*")}


def _area(path: Path) -> None:
    scene = {"crs": rasterio.CRS.from_string(EPSG), "transform": fuzz.GRID["transform"], "shape": (SIDE, SIDE)}
    read_area(str(path), None, **scene).mask(0, 0, (SIDE, SIDE))


NAMED = {0: "none", 1: "road", 2: "water", 3: "tree"}


def _labelled(folder: Path) -> dict[str, bytes]:
    """Rasters of codes in forms of ours and of others."""
    _raster(folder / "plain.tif", _codes())
    _raster(folder / "packed.tif", _codes(), tiled=True, blockxsize=16, blockysize=16, compress="deflate", nodata=0)
    _raster(folder / "signed.tif", _codes().astype(np.int16), dtype="int16", palette=False)
    return {path.name: path.read_bytes() for path in folder.glob("*.tif")}


def _our_labels(folder: Path) -> dict[str, bytes]:
    """Labels of ours with what lies beside them."""
    (place := folder / "run").mkdir()
    _segmented(place)
    return {path.name: path.read_bytes() for path in place.iterdir() if path.suffix in (".xml", ".qml", ".dbf")}


def _scene(folder: Path) -> Path:
    data = np.random.default_rng(0).integers(1, 255, (3, 600, 70), dtype=np.uint8)
    profile = {"driver": "GTiff", "height": 600, "width": 70, "count": 3, "dtype": "uint8", **PLACE}
    with rasterio.open(folder / "scene.tif", "w", **profile) as dst:
        dst.write(data)
    return folder / "scene.tif"


def _segmented(folder: Path, **more: Any) -> Any:
    settings = {"model": "demo", "tile": 448, "stride": 448, "background": "none"}
    scene = folder / "scene.tif" if (folder / "scene.tif").exists() else _scene(folder)
    return segment(scene, "road,water", output=folder / "labels.tif", **settings, **more)


def _described(path: Path) -> None:
    labels = path.with_name("labels.tif")
    info(labels)
    vectorize(labels, path.with_name("out.gpkg"))


def _parts(folder: Path) -> dict[str, bytes]:
    """A run of two parts that was stopped when both were finished."""
    (place := folder / "run").mkdir()
    _segmented(place, shard=(1, 1))
    np.save(
        folder / "codes.npy",
        _with_place(merge(shutil.copytree(place / "labels.tif.parts", folder / "labels.tif.parts")).labels),
    )
    parts = place / "labels.tif.parts"
    return {f"{parts.name}/{path.name}": path.read_bytes() for path in parts.iterdir() if path.name != "lock"}


def _merged(path: Path) -> Outcome:
    """Labels of parts of which one file is another one: the same as before, or none."""
    return _as_before(path, merge(path.parent).labels)


def _gone_on(path: Path) -> Outcome:
    """The same of a run that goes on with them."""
    return _as_before(path, _segmented(path.parents[1], resume=True).labels)


def _as_before(path: Path, labels: str) -> Outcome:
    found, before = _with_place(labels), np.load(path.parents[2] / "sound" / "codes.npy")
    return READ if np.array_equal(found, before) else {"outcome": "failed", "why": f"other labels, {found.shape}"}


def _with_place(labels: str) -> Any:
    """Codes of a raster and where it lies, as one array."""
    with rasterio.open(labels) as src:
        place = [*src.shape, *list(src.transform)[:6], float(src.crs == rasterio.CRS.from_string(EPSG))]
        return np.concatenate([src.read(1).ravel(), place])


FEATURE = torch.nn.functional.normalize(torch.arange(1.0, 65.0), dim=0)


def _feature(path: Path) -> Outcome:
    """A kept feature is the one it was, or it is none."""
    found = _unpacked(path.read_bytes(), "key", 64, unit=True)
    if found is None:
        return {"outcome": "refused", "why": "it is computed anew"}
    return READ if torch.equal(found, FEATURE) else {"outcome": "failed", "why": "another feature"}


def _layer() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))


def _weights(folder: Path) -> dict[str, bytes]:
    state = _layer().state_dict()
    save_file(state, folder / "plain.safetensors")
    torch.save(state, folder / "table.pt")
    torch.save({"state_dict": state, "epoch": 3}, folder / "nested.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _filled(path: Path) -> None:
    with as_weights(path, ModelCard(name="a layer", arch="a layer", path=path)):
        fill(_layer(), read_state(path))


def _timing(path: Path) -> Outcome:
    try:
        Timings.from_json(path.read_bytes().decode())
    except DAMAGED:
        return {"outcome": "refused", "why": "it is measured anew"}
    return READ


def _timings(folder: Path) -> dict[str, bytes]:
    needs = json.loads(PACKAGED.read_text())
    return {"a.json": json.dumps(next(iter(needs["methods"].values()))).encode()}


def _region_ids(path: Path) -> None:
    with rasterio.open(path.parents[1] / "sound" / "grid" / "scene.tif") as scene, open_regions(path, scene) as found:
        found.read(Window(0, 0, SIDE, SIDE))


def _ids(folder: Path) -> dict[str, bytes]:
    (folder / "grid").mkdir()
    _raster(folder / "grid" / "scene.tif", _codes())
    return _labelled(folder)


def _truths(folder: Path) -> dict[str, bytes]:
    found = {**_labelled(folder), **_shapes(folder)}
    (folder / "run").mkdir()
    _raster(folder / "run" / "labels_.tif", _codes())
    names = "".join(f"<Category>{name}</Category>" for name in ("none", "road", "water", "tree"))
    band = f'<PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames></PAMRasterBand>'
    (folder / "run" / "labels_.tif.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")
    return found


def _evaluated(path: Path) -> None:
    how: dict[str, Any] = {"field": "class_name"}
    if path.suffix == ".tif":
        how = {"mapping": {"1": "road", "2": "water", "3": "tree"}}
    evaluate(path.with_name("labels_.tif"), path, **how)


READERS: dict[str, Reader] = {
    "classes": Reader(
        _texts("building: house,roof #c0392b\nroad,street\nwater # 3\n", "a\nb\n", "x,y,z #00ff00\n\n# c\nw: v"),
        reading(lambda path: read_classes(f"@{path}", None)),
    ),
    "templates": Reader(_texts("a photo of {}.\nan aerial view of {}\n", "{}"), reading(lambda p: templates(str(p)))),
    "colours": Reader(_texts("building #0000ff\nroad: street #ff0000\n"), reading(lambda p: read_colours(str(p)))),
    "set": Reader(_texts("residual=true\nscale=40", "beta=1.2", "output=code\ngamma=3.0"), reading(_chosen)),
    "aoi": Reader(_shapes, reading(_area)),
    "truth": Reader(_truths, reading(_evaluated), "run"),
    "labels": Reader(_labelled, reading(lambda path: vectorize(path, path.with_name("out.fgb")))),
    "info": Reader(lambda folder: {**_labelled(folder), **_shapes(folder)}, reading(info)),
    "side files": Reader(_our_labels, reading(_described), "run"),
    "merge": Reader(_parts, reading(_merged), "run"),
    "resume": Reader(_parts, reading(_gone_on), "run"),
    "features": Reader(lambda folder: {"a.npy": _packed(FEATURE, "key")}, reading(_feature)),
    "timings": Reader(_timings, reading(_timing)),
    "weights": Reader(_weights, reading(_filled)),
    "regions": Reader(_ids, reading(_region_ids)),
}


def run(make: Make, folder: Path, numbers: Sequence[int], attempt: Attempt) -> Iterator[Outcome]:
    """Try files one after the other in one child, and in another one from where a child ended before its time."""
    left = list(numbers)
    while left:
        ours, theirs = os.pipe()
        if (child := os.fork()) == 0:
            os.close(ours)
            try:
                _try_all(make, folder, left, attempt, theirs)
                os._exit(0)
            finally:  # nothing of the helper's is for a child to end
                os._exit(1)
        os.close(theirs)
        with os.fdopen(ours, "rb") as pipe:
            lines = pipe.read().splitlines()
        status = os.waitpid(child, 0)[1]
        ended = -(-len(lines) // 2) if len(lines) % 2 or not status else len(lines) // 2 + 1
        for n in range(ended):
            yield {"number": left[n], **fuzz.outcome_of(lines[2 * n : 2 * n + 2], status)}
        left = left[ended:]


def _try_all(make: Make, folder: Path, numbers: Sequence[int], attempt: Attempt, answer: int) -> None:
    fuzz.limit_memory()
    for number in numbers:
        (here := folder / str(number)).mkdir(parents=True)
        fuzz.tried(attempt, make(here, number), answer)
        if "KEEP" not in os.environ:
            shutil.rmtree(here)


def main() -> None:
    folder, numbers, names = Path(sys.argv[1]), range(*map(int, sys.argv[2:5])), sys.argv[5:] or list(READERS)
    fuzz.prepare(folder / "scenes")
    for name in names:
        place = folder / name.replace(" ", "_")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make = READERS[name].make(place)
        gc.freeze()
        for outcome in run(make, place, numbers, READERS[name].attempt):
            print(json.dumps({"reader": name, **outcome}), flush=True)


if __name__ == "__main__":
    main()
