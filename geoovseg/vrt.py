"""VRTs as XML: a raster that is made of others, with all that these say of their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from affine import Affine
from rasterio.crs import CRS
from rasterio.dtypes import _gdal_typename
from rasterio.enums import ColorInterp


def dataset(shape: tuple[int, int], crs: CRS | None, transform: Affine, tags: Mapping[str, str]) -> Element:
    """A raster of so many rows and columns, without bands yet."""
    root = Element("VRTDataset", rasterXSize=str(shape[1]), rasterYSize=str(shape[0]))
    if crs is not None:
        SubElement(root, "SRS").text = crs.to_wkt()
    SubElement(root, "GeoTransform").text = ",".join(repr(float(value)) for value in transform.to_gdal())
    _metadata(root, tags)
    return root


def band_like(root: Element, src: Any, number: int) -> Element:
    """Add a band that says of its numbers what a band of an open raster says, in the order that GDAL wants."""
    band = SubElement(root, "VRTRasterBand", dataType=_gdal_typename(src.dtypes[number - 1]), band=str(number))
    at = number - 1
    if src.descriptions[at]:
        SubElement(band, "Description").text = src.descriptions[at]
    _metadata(band, {"NBITS": bits} if (bits := bits_of(src, number)) else {}, "IMAGE_STRUCTURE")
    if src.nodatavals[at] is not None:
        SubElement(band, "NoDataValue").text = repr(src.nodatavals[at])
    SubElement(band, "ColorInterp").text = src.colorinterp[at].name.capitalize()
    if src.colorinterp[at] == ColorInterp.palette:
        table = SubElement(band, "ColorTable")
        for _, colour in sorted(src.colormap(number).items()):
            SubElement(table, "Entry", {f"c{n}": str(value) for n, value in enumerate(colour, start=1)})
    SubElement(band, "Offset").text = repr(src.offsets[at])
    SubElement(band, "Scale").text = repr(src.scales[at])
    return band


def mask_of(root: Element) -> Element:
    """Add a mask that counts for all bands."""
    return SubElement(SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")


def bits_of(src: Any, number: int) -> str | None:
    """How many bits of its pixel type a band says it uses."""
    found: str | None = src.tags(number, ns="IMAGE_STRUCTURE").get("NBITS")
    return found


def _metadata(parent: Element, tags: Mapping[str, str], domain: str = "") -> None:
    found = SubElement(parent, "Metadata", {"domain": domain} if domain else {})
    for key, value in tags.items():
        SubElement(found, "MDI", key=key).text = value
