"""What methods take on the demo model, as packaged for first dry runs: writes geoovseg/models/demo/paces.json.

Run it on a quiet machine without a CUDA device when a method's windows or speed have changed.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from dataclasses import replace

from geoovseg.demo.files import write_scene
from geoovseg.errors import GeoOVSegError
from geoovseg.methods import METHODS
from geoovseg.run.checks import check_models, check_settings
from geoovseg.run.rehearsal import rehearse
from geoovseg.run.timings import PACKAGED, product_seconds
from geoovseg.scene.scene import open_scene
from geoovseg.settings import Settings
from geoovseg.vocabulary import read_classes

TRIES = 3


def main() -> None:
    """Methods that need no weights besides, in a scene of many windows."""
    warnings.simplefilter("ignore")
    words, methods = read_classes("road,water", None), {}
    with tempfile.TemporaryDirectory() as folder:
        scene, _ = write_scene(folder, 1004, 1024, 1024)
        for method in METHODS:
            settings = Settings(method=method, model="demo", device="cpu")
            try:
                check_settings(settings)
                check_models(settings)
            except GeoOVSegError:  # its models are not here, and not in the package
                continue
            with open_scene(scene) as src:
                paces = [rehearse(src, words, settings) for _ in range(TRIES)]
            best = min(paces, key=lambda pace: next(iter(pace.tiles.values())).seconds)
            anywhere = replace(best, needs=replace(best.needs, memory=0))  # that of the machine it is used on
            methods[method] = json.loads(anywhere.to_json())
    text = json.dumps({"product_seconds": product_seconds(), "methods": methods}, indent=1)
    PACKAGED.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
