"""By QGIS's own Python: run an algorithm of the plugin, and tell what came of it as JSON on the last line."""

from __future__ import annotations

import json
import os
import sys

sys.path[:0] = ["/usr/share/qgis/python/plugins", os.environ["QGIS_PLUGIN"]]

from qgis.core import QgsApplication, QgsProcessingFeedback, QgsRasterLayer, QgsVectorLayer


class Heard(QgsProcessingFeedback):
    """Keeps what is said, and cancels once some part is done."""

    def __init__(self, most: float) -> None:
        super().__init__(False)
        self.parts: list[float] = []
        self.said: list[str] = []
        self._most = most

    def setProgress(self, part: float) -> None:  # noqa: N802
        self.parts.append(part)
        super().setProgress(part)
        if part >= self._most:
            self.cancel()

    def pushInfo(self, text: str) -> None:  # noqa: N802
        self.said.append(text)


def main(name: str, parameters: str, most: str) -> None:
    app = QgsApplication([], False)
    app.initQgis()
    import processing
    from processing.core.Processing import Processing

    Processing.initialize()
    from geoovseg_qgis.plugin import GeoovsegPlugin

    plugin = GeoovsegPlugin()
    plugin.initProcessing()
    heard = Heard(float(most))
    found = processing.run(name, json.loads(parameters), feedback=heard)
    told = {"results": found, "parts": heard.parts, "said": heard.said}
    if path := found.get("LABELS"):
        layer = QgsRasterLayer(path, "labels")
        kinds = layer.renderer().classes() if layer.isValid() and hasattr(layer.renderer(), "classes") else []
        told["labels"] = [kind.label for kind in kinds]
    if path := found.get("VECTORS"):
        layer = QgsVectorLayer(path, "polygons")
        told["polygons"] = [category.label() for category in layer.renderer().categories()]
    print(json.dumps(told), flush=True)
    os._exit(0)


main(*sys.argv[1:])
