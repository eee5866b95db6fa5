"""Make docs/qgis_dialog.png in a real QGIS: `xvfb-run -a qgis --nologo --code docs/qgis_dialog.py`.

In the root of the repository, with what `make demo` wrote. The plugin's folder, qgis/, need not be installed.
"""

import os
import sys
import traceback
from pathlib import Path

from qgis.core import QgsApplication, QgsProject, QgsRasterLayer
from qgis.PyQt.QtCore import QTimer

ROOT = Path(os.getcwd())
sys.path.insert(0, str(ROOT / "qgis"))


def draw() -> None:
    """The dialog with parameters filled in, as a picture; then QGIS ends."""
    try:
        from geoovseg_qgis.plugin import GeoovsegPlugin
        from processing.gui.AlgorithmDialog import AlgorithmDialog

        plugin = GeoovsegPlugin()  # kept: its provider ends with it
        plugin.initProcessing()
        layer = QgsRasterLayer(str(ROOT / "demo" / "scene.tif"), "scene")
        QgsProject.instance().addMapLayer(layer)
        dialog = AlgorithmDialog(QgsApplication.processingRegistry().createAlgorithmById("geoovseg:segment"), False)
        dialog.setParameters({"SCENE": layer, "CLASSES": "building=house+roof,road,water"})
        dialog.resize(900, 620)
        dialog.show()
        QgsApplication.processEvents()
        dialog.grab().save(str(ROOT / "docs" / "qgis_dialog.png"))
    except Exception:
        traceback.print_exc()
    os._exit(0)


QTimer.singleShot(3000, draw)
