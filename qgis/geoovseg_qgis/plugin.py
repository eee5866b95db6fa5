"""The plugin: a provider of algorithms, and where its command is."""

from qgis.core import QgsApplication

from .provider import GeoovsegProvider


class GeoovsegPlugin:
    """Adds the provider to Processing."""

    def __init__(self):
        self.provider = None

    def initProcessing(self):  # noqa: N802 - also called by qgis_process
        self.provider = GeoovsegProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self):  # noqa: N802
        self.initProcessing()

    def unload(self):
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
