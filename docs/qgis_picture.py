"""Open the polygons of a scene in QGIS, check how they look there, and write a picture of it with its legend.

    QT_QPA_PLATFORM=offscreen python3 docs/qgis_picture.py demo/scene.tif demo/scene_classes.gpkg docs/qgis.jpg

With `--photo` the scene alone is drawn beside it, as in docs/real.jpg.

Needs QGIS 3.22 or newer with PyQGIS, so it is run by hand, with the Python that QGIS is installed for. Nothing is
styled here: names and colours are what QGIS finds in the GeoPackage by itself, as when a user drops the file on it.
"""

from __future__ import annotations

import os
import sys

from qgis.PyQt.QtCore import QSize, Qt
from qgis.PyQt.QtGui import QFont, QImage, QPainter

from qgis import core

os.environ["GDAL_PAM_ENABLED"] = "NO"  # or QGIS lays a file of statistics beside the scene
HEIGHT, LEGEND, GAP, DOTS = 236, 68, 6, 4  # millimetres, and pixels of one
WIDEST = 1400  # pixels


def opened(path: str) -> core.QgsVectorLayer:
    """The one layer that QGIS offers for the file, with the style it finds there."""
    (found,) = core.QgsProviderRegistry.instance().querySublayers(path)
    options = core.QgsProviderSublayerDetails.LayerOptions(core.QgsProject.instance().transformContext())
    assert options.loadDefaultStyle, "QGIS loads the default style unless told otherwise"
    return found.toLayer(options)


def check(layer: core.QgsVectorLayer) -> None:
    """Print what QGIS made of the layer; every feature must be drawn under the name in its own row."""
    renderer = layer.renderer()
    print(f"layer {layer.name()}: {layer.crs().authid()}, {layer.featureCount()} features, {renderer.type()}")
    assert layer.crs().isValid(), "no coordinate system"
    assert isinstance(renderer, core.QgsCategorizedSymbolRenderer), "the default style was not found"
    for category in renderer.categories():
        print(f"{category.value()!s:>5}  {category.symbol().color().name()}  {category.label()}")
    colours = {category.symbol().color().name() for category in renderer.categories()}
    assert len(colours) == len(renderer.categories()), "two classes of one colour"
    labels = {item.ruleKey(): item.label() for item in renderer.legendSymbolItems()}
    values = {str(category.value()): category.label() for category in renderer.categories()}
    context = core.QgsRenderContext()
    renderer.startRender(context, layer.fields())
    for feature in layer.getFeatures():
        drawn = [labels[key] for key in renderer.legendKeysForFeature(feature, context)]
        assert drawn == [feature["class_name"]] == [values.get(str(feature["class_id"]))], (feature.id(), drawn)
    renderer.stopRender(context)
    print("every feature is drawn under its class_name")


def picture(scene: core.QgsRasterLayer, layer: core.QgsVectorLayer, path: str, *, photo: bool) -> None:
    """A picture of the map and its legend, with `photo` after one of the scene alone."""
    panes = [drawn(scene, [layer, scene], layer)]
    if photo:
        panes.insert(0, drawn(scene, [scene]))
    page = QImage(sum(pane.width() for pane in panes), panes[0].height(), QImage.Format_RGB32)
    painter, left = QPainter(page), 0
    for pane in panes:
        painter.drawImage(left, 0, pane)
        left += pane.width()
    painter.end()
    assert page.scaledToWidth(min(page.width(), WIDEST), Qt.SmoothTransformation).save(path, quality=85), path


def drawn(
    scene: core.QgsRasterLayer, layers: list[core.QgsMapLayer], named: core.QgsVectorLayer | None = None
) -> QImage:
    """A map, as wide as the scene is at its height, and beside it the legend of the layer `named`."""
    width = round(HEIGHT * scene.extent().width() / scene.extent().height())
    page = width + (LEGEND if named else GAP)
    layout = core.QgsLayout(core.QgsProject.instance())
    layout.initializeDefaults()
    layout.pageCollection().page(0).setPageSize(core.QgsLayoutSize(page, HEIGHT))
    drawing = core.QgsLayoutItemMap(layout)
    layout.addLayoutItem(drawing)
    drawing.attemptMove(core.QgsLayoutPoint(0, 0))
    drawing.attemptResize(core.QgsLayoutSize(width, HEIGHT))
    drawing.setLayers(layers)
    drawing.zoomToExtent(scene.extent())
    if named:
        legend = core.QgsLayoutItemLegend(layout)
        layout.addLayoutItem(legend)
        legend.attemptMove(core.QgsLayoutPoint(width + GAP, 0))
        legend.setAutoUpdateModel(False)
        legend.model().rootGroup().clear()
        legend.model().rootGroup().addLayer(named)
        legend.setStyleFont(core.QgsLegendStyle.Subgroup, QFont("DejaVu Sans", 20, QFont.Bold))
        legend.setStyleFont(core.QgsLegendStyle.SymbolLabel, QFont("DejaVu Sans", 18))
        legend.setSymbolWidth(12)
        legend.setSymbolHeight(8)
    return core.QgsLayoutExporter(layout).renderPageToImage(0, QSize(DOTS * page, DOTS * HEIGHT))


application = core.QgsApplication([], False)
application.initQgis()
project = core.QgsProject.instance()
scene, layer = core.QgsRasterLayer(sys.argv[1], "scene"), opened(sys.argv[2])
project.addMapLayers([scene, layer])
check(layer)
picture(scene, layer, sys.argv[3], photo="--photo" in sys.argv)
project.clear()
application.exitQgis()
