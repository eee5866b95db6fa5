"""The provider: all algorithms, and the setting that says where geoovseg is."""

from pathlib import Path

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms import ALGORITHMS
from .command import SETTING

ICON = str(Path(__file__).with_name("icon.svg"))


class GeoovsegProvider(QgsProcessingProvider):
    """geoovseg in the toolbox."""

    def id(self):
        return "geoovseg"

    def name(self):
        return "geoovseg"

    def icon(self):
        return QIcon(ICON)

    def svgIconPath(self):  # noqa: N802
        return ICON

    def load(self):
        ProcessingConfig.settingIcons["geoovseg"] = self.icon()
        about = "The command geoovseg; empty: as found on PATH"
        ProcessingConfig.addSetting(Setting("geoovseg", SETTING, about, "", valuetype=Setting.FILE))
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def unload(self):
        ProcessingConfig.removeSetting(SETTING)

    def loadAlgorithms(self):  # noqa: N802
        for kind in ALGORITHMS:
            self.addAlgorithm(kind())
