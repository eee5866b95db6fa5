"""The page of `geoovseg explore` in a real browser, with a person's clicks and keys."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geoovseg import encode
from geoovseg.demo.files import write_scene

pytestmark = [pytest.mark.trial, pytest.mark.xdist_group("browser")]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "headless=new", "no-sandbox", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "enable-unsafe-swiftshader", "use-gl=angle", "use-angle=swiftshader",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("browser")
    write_scene(found, 5, 500, 700)
    encode(found / "scene.tif", model="demo")
    return found


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Of a page that runs until the tests are done."""
    command = [sys.executable, "-m", "geoovseg", "explore", str(folder / "scene.tif"), "-c", "building,road,water"]
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([*command, "--background", "none", "--port", "0", "--no-browser"], **given) as run:
        assert run.stdout is not None
        yield run.stdout.readline().strip()
        run.send_signal(2)
        assert run.wait(20) == 0


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium and chromedriver on this machine")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, "window-size=1300,850"):
        options.add_argument(f"--{flag}")
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.get(address)
    _until(lambda: driver.execute_script("return window.maps && maps.scene.loaded() && maps.labels.loaded()"))
    yield driver
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
    driver.quit()


def _until(there: Callable[[], Any], seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while not (found := there()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def _picture(page: Any) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.get_screenshot_as_png())).convert("RGB")).astype(int)


def _find(page: Any, css: str) -> list[Any]:
    return list(page.find_elements("css selector", css))


def _type(page: Any, field: Any, text: str) -> float:
    """Words into a field; the seconds until the map has them."""
    page.execute_script("delete document.body.dataset.painted")
    field.send_keys("\ue009" + "a")  # Control
    field.send_keys(text + "\ue004")  # Tab
    _until(lambda: page.execute_script("return document.body.dataset.painted"))
    return float(page.execute_script("return document.body.dataset.painted")) / 1000


def test_a_word_that_is_typed_changes_the_map(page: Any) -> None:
    before = _picture(page)
    _type(page, _find(page, ".class input:not([type=color])")[2], "forest=tree+forest")
    after = _picture(page)
    assert (np.abs(before - after)[:, :950].max(-1) > 20).mean() > 0.05
    assert [cell.text for cell in _find(page, "#legend td:nth-child(2)")] == ["building", "road", "forest"]
    assert page.execute_script("return document.activeElement.textContent") == "like"  # the focus went on
    _type(page, _find(page, ".class input:not([type=color])")[2], "water")


def test_swiping_shows_the_scene_on_one_side(page: Any) -> None:
    whole = _picture(page)
    _find(page, "#swiping")[0].click()
    half = _picture(page)
    changed = np.abs(whole - half)[60:600, :980].max(-1) > 12
    assert changed[:, 60:470].mean() > 0.5
    assert changed[:, 510:940].mean() < 0.02


def test_a_threshold_clears_unsure_pixels(page: Any) -> None:
    before = _picture(page)
    page.execute_script("delete document.body.dataset.painted")
    slider = _find(page, "#threshold")[0]
    page.execute_script("arguments[0].value = 0.95; arguments[0].dispatchEvent(new Event('change'))", slider)
    _until(lambda: page.execute_script("return document.body.dataset.painted"))
    assert (np.abs(before - _picture(page))[:, :950].max(-1) > 12).any()
    assert _find(page, "#legend td:nth-child(2)")[0].text == "background"
    page.execute_script("arguments[0].value = 0; arguments[0].dispatchEvent(new Event('change'))", slider)
    _until(lambda: _find(page, "#legend td:nth-child(2)")[0].text == "building")


def test_a_click_tells_what_is_there_and_an_example_is_marked_by_one(page: Any) -> None:
    from selenium.webdriver import ActionChains

    scene = _find(page, "#scene")[0]
    ActionChains(page).move_to_element(scene).click().perform()
    assert "confidence" in _until(lambda: _find(page, "#here")[0].text)
    _find(page, ".class button")[0].click()
    ActionChains(page).move_to_element_with_offset(scene, 60, 60).click().perform()
    _until(lambda: _find(page, ".class button")[0].text == "like 1")
    ActionChains(page).move_to_element_with_offset(scene, 3 - scene.size["width"] // 2, 0).click().perform()
    _until(lambda: _find(page, "#status")[0].text == "this is beside the image")
    assert _find(page, ".class button")[0].text == "like 1"
    _find(page, "body")[0].send_keys("\ue00c")  # Escape
    assert _find(page, ".class button")[0].get_attribute("aria-pressed") == "false"


def test_what_is_saved_is_what_the_printed_command_makes(page: Any, folder: Path) -> None:
    _find(page, "#save button")[0].click()
    said = _find(page, "#command")[0]
    _until(lambda: said.get_attribute("data-done") == "true", 120)
    command = said.text.splitlines()[0].replace("explored_labels.tif", "again.tif")
    run = shlex.split(command.replace("explored_classes.gpkg", "again.gpkg"))
    subprocess.run([sys.executable, "-m", *run], check=True, capture_output=True)
    assert (folder / "explored_labels.tif").read_bytes() == (folder / "again.tif").read_bytes()


def test_nothing_is_asked_of_any_other_host(page: Any, address: str) -> None:
    _type(page, _find(page, ".class input:not([type=color])")[1], "street=road+street")
    said = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in said if each["method"] == "Network.requestWillBeSent"]
    own = address.partition("/?")[0]
    assert len(asked) > 5
    assert [url for url in asked if not url.startswith((own, "data:", "blob:"))] == []


def test_a_narrow_window_has_the_panel_below(page: Any) -> None:
    page.set_window_size(480, 900)
    panel, scene = (_find(page, name)[0].rect for name in ("#panel", "#scene"))
    assert panel["y"] >= scene["y"] + scene["height"] - 1
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
