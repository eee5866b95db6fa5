"""How labels look in a GIS: QGIS styles and GDAL side files, as text. No raster is opened here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, indent, tostring

CONFIDENCE_RAMP = ((0, "#440154"), (0.25, "#3b528b"), (0.5, "#21918c"), (0.75, "#5ec962"), (1, "#fde725"))
"""Confidence and its colours, with what lies between in even steps."""

_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""What XML cannot hold, in no way."""


@dataclass(frozen=True)
class LegendEntry:
    """One code of a label raster."""

    code: int
    name: str
    colour: str
    """#rrggbb"""
    pixels: int = 0

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green, blue, 0..255."""
        return int(self.colour[1:3], 16), int(self.colour[3:5], 16), int(self.colour[5:7], 16)


def crs_aux_xml(wkt: str) -> str:
    """GDAL's side file of a raster that cannot hold its coordinate system itself."""
    return _text(_side_file(wkt))


def _side_file(wkt: str | None) -> Element:
    """What counts then is the side file's; without a word on axes they are in the order of rasters."""
    root = Element("PAMDataset")
    if wkt is not None:
        SubElement(root, "SRS").text = wkt
    return root


def label_aux_xml(legend: Sequence[LegendEntry], wkt: str | None = None) -> str:
    """GDAL's side file of a label raster: category names by code and an attribute table with colours and counts.

    `wkt` is a coordinate system that the raster cannot hold itself.
    """
    root = _side_file(wkt)
    band = SubElement(root, "PAMRasterBand", band="1")
    names = SubElement(band, "CategoryNames")
    by_code = {entry.code: entry.name for entry in legend}
    for code in range(max(by_code) + 1):
        SubElement(names, "Category").text = by_code.get(code, "")
    table = SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    # GDAL's type (0 integer of 32 bits, 1 real, 2 string) and usage (5 value, 2 name, 1 count, 6..8 red, green, blue)
    columns = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8), ("Count", 1, 1))
    for index, (name, kind, usage) in enumerate(columns):
        column = SubElement(table, "FieldDefn", index=str(index))
        for tag, text in (("Name", name), ("Type", str(kind)), ("Usage", str(usage))):
            SubElement(column, tag).text = text
    for index, entry in enumerate(legend):
        row = SubElement(table, "Row", index=str(index))
        for value in (entry.code, entry.name, *entry.rgb, entry.pixels):
            SubElement(row, "F").text = str(value)
    return _text(root)


def label_qml(legend: Sequence[LegendEntry]) -> str:
    """A QGIS style for labels: one named colour a class, code 0 transparent."""
    root, pipe = _qgis()
    renderer = SubElement(pipe, "rasterrenderer", type="paletted", opacity="1", alphaBand="-1", band="1")
    SubElement(renderer, "rasterTransparency")
    palette = SubElement(renderer, "colorPalette")
    for entry in legend:
        alpha = "0" if entry.code == 0 else "255"
        SubElement(palette, "paletteEntry", value=str(entry.code), color=entry.colour, label=entry.name, alpha=alpha)
    return _text(root, doctype=True)


def vector_qml(legend: Sequence[LegendEntry]) -> str:
    """A QGIS style for polygons: one named colour a class, by the column class_id."""
    outline = (("style", "solid"), ("outline_color", "60,60,60,255"), ("outline_width", "0.1"))
    return _text(_by_class(legend, "fill", "SimpleFill", outline, "Symbology"), doctype=True)


def sample_qml(legend: Sequence[LegendEntry], field: str) -> str:
    """A QGIS style for points of a sample: coloured by class_id, and a list of the classes to fill a field from."""
    ring = (("name", "circle"), ("outline_color", "255,255,255,255"), ("outline_width", "0.4"), ("size", "3"))
    root = _by_class(legend, "marker", "SimpleMarker", ring, "Symbology|Fields|Forms")
    widget = SubElement(SubElement(SubElement(root, "fieldConfiguration"), "field", name=field), "editWidget")
    widget.set("type", "ValueMap")
    values = SubElement(SubElement(SubElement(widget, "config"), "Option", type="Map"), "Option")
    values.attrib.update(name="map", type="List")
    for entry in legend:
        item = SubElement(values, "Option", type="Map")
        SubElement(item, "Option", name=entry.name, value=entry.name, type="QString")
    return _text(root, doctype=True)


def _by_class(
    legend: Sequence[LegendEntry], kind: str, layer_class: str, looks: Sequence[tuple[str, str]], categories: str
) -> Element:
    """A style with a symbol a class, by the column class_id."""
    root = Element("qgis", version="3.22", styleCategories=categories)
    renderer = SubElement(root, "renderer-v2", type="categorizedSymbol", attr="class_id", enableorderby="0")
    listed, symbols = SubElement(renderer, "categories"), SubElement(renderer, "symbols")
    for number, entry in enumerate(legend):
        said = {"value": str(entry.code), "label": entry.name, "symbol": str(number), "render": "true"}
        SubElement(listed, "category", said)
        symbol = SubElement(symbols, "symbol", type=kind, name=str(number), alpha="0.8")
        layer = SubElement(symbol, "layer", {"class": layer_class, "enabled": "1", "pass": "0", "locked": "0"})
        red, green, blue = entry.rgb
        for key, value in (("color", f"{red},{green},{blue},255"), *looks):
            SubElement(layer, "prop", k=key, v=value)
    return root


def measure_qml(band: int = 1) -> str:
    """A QGIS style for a band of confidence, or of scores: dark to light over 0 to 1, alike for all scenes."""
    root, pipe = _qgis()
    renderer = SubElement(
        pipe, "rasterrenderer", type="singlebandpseudocolor", opacity="1", alphaBand="-1", band=str(band),
        classificationMin="0", classificationMax="1",
    )  # fmt: skip
    SubElement(renderer, "rasterTransparency")
    shader = SubElement(SubElement(renderer, "rastershader"), "colorrampshader", colorRampType="INTERPOLATED", clip="0")
    for value, colour in CONFIDENCE_RAMP:
        SubElement(shader, "item", value=str(value), color=colour, label=f"{value:g}", alpha="255")
    return _text(root, doctype=True)


def _qgis() -> tuple[Element, Element]:
    root = Element("qgis", version="3.22", styleCategories="Symbology")
    return root, SubElement(root, "pipe")


def _text(root: Element, *, doctype: bool = False) -> str:
    indent(root)
    for item in root.iter():
        item.attrib.update({key: _NO_XML.sub("\ufffd", said) for key, said in item.attrib.items()})
        item.text = item.text and _NO_XML.sub("\ufffd", item.text)
    head = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" if doctype else ""
    return head + tostring(root, encoding="unicode") + "\n"
