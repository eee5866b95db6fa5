"""The page in the browser: tiles, words asked at once, what is saved, and who is let in."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geoovseg import encode, segment
from geoovseg.demo.files import write_scene
from geoovseg.errors import OutputError, UsageError
from geoovseg.explore.asked import Asked, asked_of
from geoovseg.explore.guard import hosts_of
from geoovseg.explore.opened import opened
from geoovseg.explore.pyramid import AROUND, SIDE, Pyramid
from geoovseg.explore.server import application, serve
from geoovseg.explore.session import Session

SHAPE = (300, 420)
TOKEN = "a token"
HOST = "127.0.0.1:8765"
CLASSES = [Asked("building"), Asked("road"), Asked("lake", ("water",), "#123456")]
WORDS = ["building", "road", "lake=water"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn scene with its features and labels."""
    found = tmp_path_factory.mktemp("explore")
    write_scene(found, 5, *SHAPE)
    encode(found / "scene.tif", model="demo")
    segment(found / "scene_features.zarr", WORDS, output=found / "scene_labels.tif", upsample="bilinear")
    return found


@pytest.fixture
def session(folder: Path, tmp_path: Path) -> Iterator[Session]:
    with opened([str(folder / "scene_features.zarr")]) as found:
        own = Session(found, tmp_path)
        yield own
        own.close()


def _pixels(tile: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(tile)).convert("RGBA"))


def _whole(make: Any, pyramid: Pyramid) -> np.ndarray:
    """All tiles of the last level put together."""
    first = 1 << (pyramid.levels - AROUND)
    count = range(first, 2 * first)
    whole = np.vstack([np.hstack([_pixels(make(pyramid.levels, x, y)) for x in count]) for y in count])
    return whole[: pyramid.height, : pyramid.width]


@given(st.integers(1, 3000), st.integers(1, 3000), st.data())
def test_every_pixel_is_in_one_tile_of_every_level(height: int, width: int, data: st.DataObject) -> None:
    pyramid = Pyramid(height, width)
    level = data.draw(st.integers(AROUND, pyramid.levels))
    row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    step = 2 ** (pyramid.levels - level)
    x, y = (col + pyramid.offset) // (SIDE * step), (row + pyramid.offset) // (SIDE * step)
    square = pyramid.square(level, x, y)
    assert square is not None
    assert square.row <= row < square.row + SIDE * step
    assert square.col <= col < square.col + SIDE * step
    rows, cols = pyramid.inside(square)
    assert (row - square.row) // step < rows <= SIDE
    assert (col - square.col) // step < cols <= SIDE
    assert level > AROUND or (square.row, square.col) == (0, 0)


def test_tiles_of_the_last_level_are_the_scene(session: Session, folder: Path) -> None:
    found = _whole(session.scene_tile, session.pyramid)
    with rasterio.open(folder / "scene.tif") as src:
        expected = np.moveaxis(src.read([1, 2, 3]), 0, -1)
    assert np.abs(found[..., :3].astype(int) - expected).max() <= 1
    assert (found[..., 3] == 255).all()
    assert not _pixels(session.scene_tile(session.pyramid.levels, 0, 0)).any()


def test_what_is_seen_is_what_segment_writes(session: Session, folder: Path) -> None:
    """Colours of classes at every pixel, as `--upsample bilinear` labels them."""
    session.ask(CLASSES, "auto", None)
    found = _whole(lambda *at: session.label_tile(*at, outlines=False), session.pyramid)
    with rasterio.open(folder / "scene_labels.tif") as src:
        labels, palette = src.read(1), src.colormap(1)
    assert session.colours()[3] == (0x12, 0x34, 0x56)
    colours = {**{code: palette[code][:3] for code in (1, 2)}, 3: (0x12, 0x34, 0x56)}
    expected = np.zeros((*labels.shape, 4), np.uint8)
    for code, colour in colours.items():
        expected[labels == code] = (*colour, 255)
    assert (found == expected).all(-1).mean() > 0.9995  # sums of float32 in another order
    assert set(np.unique(labels)) == {0, 1, 2, 3}


def test_a_threshold_leaves_out_what_is_unsure(session: Session) -> None:
    session.ask(CLASSES, "none", None)
    everywhere = session.legend()
    session.ask(CLASSES, "none", 0.9)
    shares = {entry["name"]: entry["share"] for entry in session.legend()}
    assert sum(entry["share"] for entry in everywhere) == pytest.approx(1)
    assert 0 < shares["background"] < 1
    assert sum(shares.values()) == pytest.approx(1)
    assert all(shares[entry["name"]] <= entry["share"] for entry in everywhere)
    seen = session.label_tile(AROUND, 1, 1, outlines=False)
    assert (_pixels(seen)[..., 3] == 0).any()


def test_shares_and_hectares_are_about_those_of_the_labels(session: Session, folder: Path) -> None:
    session.ask(CLASSES, "auto", None)
    with rasterio.open(folder / "scene_labels.tif") as src:
        labels, pixel = src.read(1), abs(src.transform.a * src.transform.e)
    for entry in session.legend():
        share = float((labels == entry["code"]).mean())
        assert entry["share"] == pytest.approx(share, abs=0.02)
        assert entry["hectares"] == pytest.approx(entry["share"] * labels.size * pixel / 1e4, rel=0.05, abs=0.02)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene whose left half has no data, with its features and labels."""
    found = tmp_path_factory.mktemp("half")
    write_scene(found, 6, 200, 300)
    with rasterio.open(found / "scene.tif") as src:
        bands, profile = src.read(), {**src.profile, "nodata": 0}
    bands = np.maximum(bands, 1)
    bands[:, :, :160] = 0
    with rasterio.open(found / "half.tif", "w", **profile) as dst:
        dst.write(bands)
    encode(found / "half.tif", model="demo")
    segment(found / "half_features.zarr", WORDS, output=found / "half_labels.tif", upsample="bilinear")
    return found


def test_pixels_without_data_count_for_nothing(half: Path, tmp_path: Path) -> None:
    with opened([str(half / "half_features.zarr")]) as found, rasterio.open(half / "half_labels.tif") as src:
        session, labels = Session(found, tmp_path), src.read(1)
        session.ask(CLASSES, "auto", None)
        legend = session.legend()
        pixel, counted = abs(src.transform.a * src.transform.e), labels != src.nodata
        session.close()
    assert counted.mean() == pytest.approx(140 / 300)
    assert sum(entry["hectares"] for entry in legend) == pytest.approx(counted.sum() * pixel / 1e4, rel=0.01)
    for entry in legend:
        assert entry["share"] == pytest.approx((labels[counted] == entry["code"]).mean(), abs=0.03)


@pytest.mark.parametrize("size", [(300, 513), (1, 300), (300, 1), (33, 770)])
def test_every_tile_of_thin_scenes_and_at_edges_is_drawn(size: tuple[int, int], tmp_path: Path) -> None:
    write_scene(tmp_path, 5, *size)
    encode(tmp_path / "scene.tif", model="demo")
    with opened([str(tmp_path / "scene_features.zarr")]) as found:
        session = Session(found, tmp_path)
        session.ask([Asked("road"), Asked("water")], "none", None)
        for level in range(AROUND, session.pyramid.levels + 1):
            for x, y in np.ndindex(2**level, 2**level):
                square = session.pyramid.square(level, x, y)
                if square is not None:
                    tile = _pixels(session.label_tile(level, x, y, outlines=False))
                    assert (tile[..., 3] > 0).sum() == np.prod(session.pyramid.inside(square))
        assert sum(entry["share"] for entry in session.legend()) == pytest.approx(1)
        session.close()


def test_offsets_of_a_class_file_shift_what_is_seen(session: Session) -> None:
    session.ask([Asked("building"), Asked("road")], "none", None)
    before = session.legend()[0]["share"]
    session.ask([Asked("building", offset=2.0), Asked("road")], "none", None)
    assert session.legend()[0]["share"] == 1 > before
    assert [each["offset"] for each in session.state(cover=False)["classes"]] == [2.0, 0]
    assert asked_of(session.state(cover=False)["classes"]) == [Asked("building", offset=2.0), Asked("road")]
    session.ask([Asked("background", ("sky",), offset=2.0), Asked("road")], "auto", None)
    assert [(entry["name"], entry["share"]) for entry in session.legend()] == [("background", 1), ("road", 0)]


def test_grids_a_few_pixels_apart_are_not_the_same(folder: Path, tmp_path: Path) -> None:
    """In degrees a pixel is a small number."""
    for name, shift in (("a", 0.0), ("b", 1e-9), ("c", 9e-6)):
        profile = {"driver": "GTiff", "height": 40, "width": 50, "count": 3, "dtype": "uint8", "crs": "EPSG:4326"}
        place = rasterio.Affine(2.7e-6, 0, 7 + shift, 0, -2.7e-6, 51)
        with rasterio.open(tmp_path / f"{name}.tif", "w", transform=place, **profile) as dst:
            dst.write(np.full((3, 40, 50), 90, np.uint8))
    segment(tmp_path / "a.tif", "road,water", output=tmp_path / "a_labels.tif", model="demo")
    with opened([str(tmp_path / "a_labels.tif"), str(tmp_path / "b.tif")]) as both:
        assert both.scene is not None
    with (
        pytest.raises(UsageError, match="another grid"),
        opened([str(tmp_path / n) for n in ("a_labels.tif", "c.tif")]),
    ):
        pass


def test_a_save_that_is_ended_leaves_the_name_free(session: Session, tmp_path: Path) -> None:
    (tmp_path / "taken_examples_1.gpkg").write_text("mine")
    session.ask([Asked("xyz", (), None, ((10.0, 10.0), (200.0, 80.0))), Asked("road")], "none", None)
    with pytest.raises(OutputError, match="taken_examples_1.gpkg exists already"):
        session.save("taken")
    session.save("ended")
    session.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken_examples_1.gpkg"]


def test_a_click_tells_place_class_confidence_and_words(session: Session, folder: Path) -> None:
    session.ask(CLASSES, "none", None)
    with rasterio.open(folder / "scene.tif") as src:
        x, y = src.transform * (100.5, 50.5)
    found = session.at(100.5, 50.5)
    assert (found["x"], found["y"], found["crs"]) == (pytest.approx(x), pytest.approx(y), "EPSG:32632")
    scores = {each["word"]: each["score"] for each in found["words"]}
    assert set(scores) == {"building", "road", "water"}
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert {"building": 1, "road": 2, "lake": 3}[found["class"]] == found["code"]
    assert 0 < found["confidence"] <= 1
    assert session.at(-1, 5) == {}


def test_examples_show_what_is_looked_for(session: Session, folder: Path) -> None:
    """Places in water, with a name that says nothing, find the water that the word finds."""
    session.ask(CLASSES, "none", None)
    pyramid = session.pyramid
    seen = _whole(lambda *at: session.label_tile(*at, outlines=False), pyramid)
    water = (seen[..., :3] == (0x12, 0x34, 0x56)).all(-1)
    rows, cols = np.nonzero(water)
    middle = len(rows) // 2
    places = ((float(cols[middle]), float(rows[middle])),)
    session.ask([Asked("building"), Asked("road"), Asked("xyz", (), "#123456", places)], "none", None)
    again = (_whole(lambda *at: session.label_tile(*at, outlines=False), pyramid)[..., :3] == (0x12, 0x34, 0x56)).all(
        -1
    )
    assert (again & water).sum() > 0.7 * water.sum()


def test_outlines_are_where_classes_meet(session: Session) -> None:
    session.ask(CLASSES, "none", None)
    filled, lines = (_pixels(session.label_tile(AROUND, 1, 1, outlines=o)) for o in (False, True))
    drawn = lines[..., 3] > 0
    assert 0 < drawn.sum() < 0.5 * (filled[..., 3] > 0).sum()
    assert (filled[drawn] == lines[drawn]).all()


@pytest.mark.trial
def test_saved_labels_are_those_of_the_command_that_is_shown(session: Session, tmp_path: Path) -> None:
    import shlex
    import subprocess
    import sys

    session.ask([*CLASSES, Asked("xyz", (), None, ((10.0, 10.0), (200.0, 80.0)))], "none", 0.4)
    said = session.save("mine")
    assert session.saving is not None
    session.saving.process.wait()
    found = session.state()["saving"]
    assert found["done"], found
    assert found["command"] == said["command"]
    assert "--threshold 0.4" in said["command"]
    command = shlex.split(
        said["command"].replace("mine_labels.tif", "other.tif").replace("mine_classes.gpkg", "o.gpkg")
    )
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)
    assert (tmp_path / "mine_labels.tif").read_bytes() == (tmp_path / "other.tif").read_bytes()
    assert (tmp_path / "mine_classes.gpkg").is_file()
    assert "lake: water #123456" in (tmp_path / "mine_classes.txt").read_text()
    with pytest.raises(OutputError, match="exists already"):
        session.save("mine")
    for name in ("../mine", "", "a/b", ".x"):
        with pytest.raises(UsageError, match="is no name for files"):
            session.save(name)


def test_labels_alone_are_shown_with_the_scene_they_were_made_of(folder: Path, tmp_path: Path) -> None:
    with opened([str(folder / "scene_labels.tif")]) as found:
        session = Session(found, tmp_path)
        state = session.state()
        assert (state["scene"], state["labels"], state["asks"]) == (False, True, False)
        assert sum(entry["share"] for entry in state["legend"]) == pytest.approx(1)
        seen = _whole(lambda *at: session.label_tile(*at, outlines=False), session.pyramid)
        with pytest.raises(UsageError, match="only kept features are asked"):
            session.ask(CLASSES, "auto", None)
        session.close()
    with opened([str(folder / "scene_labels.tif"), str(folder / "scene.tif")]) as both:
        assert both.scene is not None
    with rasterio.open(folder / "scene_labels.tif") as src:
        assert ((seen[..., 3] > 0) == (src.read(1) > 0)).all()


def test_two_of_a_kind_and_other_grids_are_refused(folder: Path, tmp_path: Path) -> None:
    write_scene(tmp_path, 6, 200, 200)
    for paths, message in (
        ([folder / "scene.tif", tmp_path / "scene.tif"], "are both scene"),
        ([folder / "scene_labels.tif", tmp_path / "scene.tif"], "lies on another grid"),
    ):
        with pytest.raises(UsageError, match=message), opened([str(path) for path in paths]):
            pass


def test_a_scene_that_changed_is_not_shown_and_told(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder / "scene_features.zarr", tmp_path / "scene_features.zarr")
    with opened([str(tmp_path / "scene_features.zarr")]) as found:
        assert found.scene is None
        assert found.notes[0].startswith("the scene is not shown")


@pytest.mark.parametrize(
    "said",
    [None, [], [{}], [{"name": "a,b"}], [{"name": "a", "words": "b"}], [{"name": "a", "words": ["x@y"]}], ["a"],
     [{"name": "a", "colour": "red"}], [{"name": "a", "examples": [[1]]}], [{"name": "a", "examples": [["x", 1]]}],
     [{"name": "a", "examples": [[1e300, 1]]}], [{"name": "a\nb: c"}], [{"name": "x" * 500}], [{"name": "x [-9]"}],
     [{"name": "a", "examples": [[10**400, 1]]}], [{"name": "a\ud800"}], [{"name": "a", "offset": "1"}],
     [{"name": "a", "offset": float("nan")}]],
)  # fmt: skip
def test_classes_that_mean_nothing_are_refused(said: Any) -> None:
    if said == [{"name": "a\nb: c"}]:
        said = [{"name": "a", "words": ["b: c"]}]
    with pytest.raises(UsageError):
        asked_of(said)


def _asked(
    app: Any, method: str, path: str, headers: dict[str, str], body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    """A request to an ASGI application."""
    place, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": place,
        "raw_path": place.encode(),
        "query_string": query.encode(),
    }
    scope |= {"headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()], "scheme": "http"}
    scope |= {"server": ("127.0.0.1", 8765), "client": ("127.0.0.1", 1), "root_path": "", "http_version": "1.1"}
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    headers = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(each.get("body", b"") for each in sent[1:])


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/state?token=a%20token", {}, 200),
        ("GET", "/state", {"X-Geoovseg-Token": TOKEN}, 200),
        ("GET", "/state", {}, 403),
        ("GET", "/", {}, 403),
        ("GET", "/page/explore.js", {}, 403),
        ("GET", "/tiles/scene/2/1/1.png", {}, 403),
        ("GET", "/state?token=another", {}, 403),
        ("GET", "/state?token=a%20token", {"Host": "evil.example:8765"}, 403),
        ("GET", "/state?token=a%20token", {"Host": "127.0.0.1:9999"}, 403),
        ("GET", "/state?token=a%20token", {"Host": "localhost:8765"}, 200),
        ("GET", "/state?token=a%20token", {"Origin": "http://evil.example"}, 403),
        ("GET", "/state?token=a%20token", {"Origin": f"http://{HOST}"}, 200),
        ("GET", "/state?token=a%20token", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", "/save?token=a%20token", {}, 403),
        ("POST", "/save", {"X-Geoovseg-Token": TOKEN, "Origin": "null"}, 403),
        ("POST", "/save", {"X-Geoovseg-Token": TOKEN, "Origin": f"http://{HOST}"}, 422),
        ("GET", "/page/../session.py?token=a%20token", {}, 404),
        ("GET", "/page/session.py?token=a%20token", {}, 404),
        ("GET", "/at?token=a%20token&col=x&row=1", {}, 422),
        ("GET", f"/tiles/scene/{'9' * 5000}/1/1.png?token=a%20token", {}, 422),
        ("GET", "/tiles/scene/-2/1/1.png?token=a%20token", {}, 422),
        ("GET", "/saving?token=a%20token", {}, 200),
        ("GET", "/state?token=a%20token", {"Host": "LOCALHOST:8765"}, 200),
    ],
)
def test_only_the_page_itself_is_let_in(
    session: Session, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    app = application(session, TOKEN, hosts_of("127.0.0.1", 8765))
    found, _, body = _asked(app, method, path, {"Host": HOST, **headers}, b"{}")
    assert found == status, body
    assert status != 403 or body.startswith(b"refused: ")


def test_names_of_an_address_are_those_a_browser_sends() -> None:
    assert hosts_of("MyServer", 8080) == ("myserver:8080",)
    assert hosts_of("MyServer", 80) == ("myserver:80", "myserver")
    assert hosts_of("fe80::1", 80) == ("[fe80::1]:80", "[fe80::1]")
    assert "localhost" in hosts_of("127.0.0.1", 80)


def test_the_address_can_be_asked_as_soon_as_it_is_told(session: Session) -> None:
    import socket

    def ready(address: str) -> None:
        host, port = address.split("/")[2].split(":")
        socket.create_connection((host, int(port)), 5).close()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serve(session, "127.0.0.1", 0, ready)


def test_answers_forbid_what_comes_from_elsewhere(session: Session) -> None:
    app = application(session, TOKEN, hosts_of("127.0.0.1", 8765))
    for path in ("/", "/page/explore.js", "/page/maplibre-gl.js", "/state", "/tiles/labels/2/1/1.png"):
        status, headers, body = _asked(app, "GET", f"{path}?token=a%20token", {"Host": HOST})
        assert status == 200
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
        assert path != "/" or (b"http://" not in body and b"https://" not in body)


def test_words_are_asked_over_http(session: Session) -> None:
    app = application(session, TOKEN, hosts_of("127.0.0.1", 8765))
    headers = {"Host": HOST, "X-Geoovseg-Token": TOKEN}
    given = {
        "classes": [{"name": "road"}, {"name": "lake", "words": ["water"]}],
        "background": "none",
        "threshold": 0.2,
    }
    status, _, body = _asked(app, "POST", "/ask", headers, json.dumps(given).encode())
    state = json.loads(body)
    assert status == 200, body
    assert [entry["name"] for entry in state["legend"]] == ["background", "road", "lake"]
    for wrong in (b"", b"[]", b"{", json.dumps({**given, "threshold": "x"}).encode(), b'{"classes": []}', b"[" * 9999):
        status, _, body = _asked(app, "POST", "/ask", headers, wrong)
        assert (status, "error" in json.loads(body)) == (422, True)
    assert _asked(app, "POST", "/ask", headers, b" " * (1 << 21))[0] == 413
    assert _asked(app, "GET", "/ask", headers)[0] == 405
