"""Make docs/explore.jpg: `python docs/explore_picture.py FEATURES.zarr` with Debian's chromium and chromium-driver.

Prints the seconds from a typed word to the painted map, five times.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "headless=new",
    "no-sandbox",
    "disable-background-networking",
    "enable-unsafe-swiftshader",
    "use-angle=swiftshader",
)


def main(features: str) -> None:
    command = [sys.executable, "-m", "geoovseg", "explore", features, "--vocabulary", "demo", "--background", "none"]
    with subprocess.Popen([*command, "--port", "0", "--no-browser"], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        address = run.stdout.readline().strip()
        options = webdriver.ChromeOptions()
        for flag in (*FLAGS, "window-size=1400,900"):
            options.add_argument(f"--{flag}")
        options.binary_location = shutil.which("chromium") or ""
        page = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        page.get(address)
        time.sleep(5)
        for word in ("lake", "pond=water+pond", "lake=water+lake", "sea", "water"):
            field = page.find_elements("css selector", ".class input:not([type=color])")[2]
            page.execute_script("delete document.body.dataset.painted")
            field.send_keys("\ue009a")
            field.send_keys(word + "\ue004")
            while not (painted := page.execute_script("return document.body.dataset.painted")):
                time.sleep(0.05)
            print(word, float(painted) / 1000)
        for _ in range(2):
            page.execute_script("maps.scene.zoomIn({animate: false})")
        page.find_element("id", "swiping").click()
        ActionChains(page).move_to_element_with_offset(page.find_element("id", "scene"), 200, 0).click().perform()
        time.sleep(3)
        picture = Image.open(io.BytesIO(page.get_screenshot_as_png())).convert("RGB")
        picture.save(Path(__file__).with_name("explore.jpg"), quality=85)
        page.quit()
        run.terminate()


if __name__ == "__main__":
    main(sys.argv[1])
