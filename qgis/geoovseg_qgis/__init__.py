"""geoovseg in the Processing toolbox of QGIS; the package itself lives in a Python environment of its own."""


def classFactory(iface):  # noqa: N802 - what QGIS calls
    """The plugin."""
    from .plugin import GeoovsegPlugin

    return GeoovsegPlugin()
