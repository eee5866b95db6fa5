"""Messages stay as long as people read, however many names there are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geoovseg.errors import GeoOVSegError, GeoOVSegWarning, some
from geoovseg.evaluation import evaluate
from geoovseg.labels.record import RUN_TAG
from geoovseg.models.cards import model_card, warn_unknown
from geoovseg.scene.scene import open_scene
from geoovseg.vectors.vectorize import vectorize
from geoovseg.vocabulary import read_classes, read_vocabulary

NAMES = [f"an unheard of thing with a long name, number {n}" for n in range(250)]
SHORT = 1200


def test_the_first_of_many_names_are_told_and_how_many_more_there_are() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some("abcde") == "a, b, c, d, e"
    assert some("abcdefg") == "a, b, c, d, e and 2 more"
    assert some([]) == ""
    assert some(range(9), 2) == "0, 1 and 7 more"
    assert len(some(["x" * 10_000])) == 200


def test_a_warning_about_250_classes_is_one_line(geoovseg: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    words = ",".join(name.replace(",", "") for name in NAMES)
    (tmp_path / "list.txt").write_text(f"road\nthing: {words}\n")
    (tmp_path / "one.txt").write_text("{}")
    given = (tmp_path / "list.txt", "--model", "demo", "--templates", tmp_path / "one.txt")
    _, _, err = geoovseg("vocabulary", *given)
    (line,) = (line for line in err.splitlines() if line.startswith("warning"))
    assert "and 245 more" in line
    assert len(line) < 500
    with pytest.warns(GeoOVSegWarning, match="and 245 more"):
        warn_unknown(model_card("demo"), read_classes(dict.fromkeys(NAMES)))


def test_words_left_out_of_a_background_are_not_all_named(tmp_path: Path) -> None:
    words = ",".join(f"word {n}" for n in range(200))
    (tmp_path / "list.txt").write_text(f"background: {words},sky\nthing: {words}\n")
    with pytest.warns(GeoOVSegWarning, match="word 4 and 195 more is a class"):
        read_vocabulary(str(tmp_path / "list.txt"))


def test_errors_do_not_name_all_classes(write_raster: Callable[..., str], tmp_path: Path) -> None:
    classes = [[name, [name], "#ff0000"] for name in NAMES]
    tags = {RUN_TAG: json.dumps({"classes": classes, "background": [], "threshold": None})}
    labels = write_raster(np.ones((1, 4, 4), np.uint8), "labels.tif", tags=tags)
    truth = write_raster(np.ones((1, 4, 4), np.uint8), "truth.tif", tags={})
    wrong: list[Callable[[], object]] = [
        lambda: vectorize(labels, tmp_path / "v.gpkg", classes=["none"]),
        lambda: evaluate(labels, truth, mapping={"1": "none"}),
        lambda: evaluate(labels, labels, mapping={"none": NAMES[0]}),
        lambda: evaluate(labels, truth),
    ]
    for call in wrong:
        with pytest.raises(GeoOVSegError) as told:
            call()
        assert 40 < len(str(told.value)) < SHORT
    with pytest.raises(GeoOVSegError, match="and 52 more"), open_scene(_many_bands(write_raster)):
        pass


def _many_bands(write_raster: Callable[..., str]) -> str:
    import rasterio

    path = write_raster(np.ones((60, 4, 4), np.uint8), "bands.tif")
    with rasterio.open(path, "r+") as dst:
        dst.descriptions = tuple(f"wave {n}" for n in range(60))
    return path
