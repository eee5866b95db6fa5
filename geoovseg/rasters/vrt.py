"""VRTs as XML: a raster that is made of others, with all that these say of their numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from affine import Affine
from rasterio._path import _parse_path, _vsi_path
from rasterio.crs import CRS
from rasterio.dtypes import _gdal_typename
from rasterio.enums import ColorInterp

from geoovseg.errors import SceneError
from geoovseg.rasters.ground import wkt_of

LIGHT = r"\b(red|green|blue)\b|nir|infra|swir|therm|red.?edge"
"""In names of bands that say which light they are."""
_NOT_ALPHA = re.compile(rf"{LIGHT}|\bpan\b", re.IGNORECASE)
"""In names of bands that are none of transparency."""


def dataset_like(
    src: Any, shape: tuple[int, int], crs: CRS | None, transform: Affine, tags: Mapping[str, str]
) -> Element:
    """A raster of so many rows and columns, without bands yet, whose numbers mean what those of an open raster do."""
    root = Element("VRTDataset", rasterXSize=str(shape[1]), rasterYSize=str(shape[0]))
    if crs is not None:
        SubElement(root, "SRS").text = wkt_of(crs)
    SubElement(root, "GeoTransform").text = ",".join(repr(float(value)) for value in transform.to_gdal())
    _metadata(root, tags)
    _metadata(root, {"MINISWHITE": "YES"} if is_negative(src) else {}, "IMAGE_STRUCTURE")
    return root


def band_like(root: Element, src: Any, number: int, nodata: float | None) -> Element:
    """Add a band that says of its numbers what a band of an open raster says, in the order that GDAL wants.

    Which of them is no data is said anew.
    """
    band = SubElement(root, "VRTRasterBand", dataType=_gdal_typename(src.dtypes[number - 1]), band=str(number))
    at = number - 1
    if src.descriptions[at]:
        SubElement(band, "Description").text = src.descriptions[at]
    _metadata(band, {"NBITS": bits} if (bits := bits_of(src, number)) else {}, "IMAGE_STRUCTURE")
    if nodata is not None:
        SubElement(band, "NoDataValue").text = repr(nodata)
    hidden = src.colorinterp[at] == ColorInterp.alpha and alpha_of(src) != number
    SubElement(band, "ColorInterp").text = "Undefined" if hidden else src.colorinterp[at].name.capitalize()
    if src.colorinterp[at] == ColorInterp.palette:
        table = SubElement(band, "ColorTable")
        for _, colour in sorted(src.colormap(number).items()):
            SubElement(table, "Entry", {f"c{n}": str(value) for n, value in enumerate(colour, start=1)})
    SubElement(band, "Offset").text = repr(src.offsets[at])
    SubElement(band, "Scale").text = repr(src.scales[at])
    return band


def source_name(src: Any) -> str:
    """What GDAL is to open for an open raster: a file, or a VRT that is in no file."""
    name: str = src.name
    return name if name.startswith("<VRTDataset") else _vsi_path(_parse_path(name))


def mask_of(whole: Element) -> Element:
    """Add a mask, which counts for all bands of a raster, or for a band."""
    return SubElement(SubElement(whole, "MaskBand"), "VRTRasterBand", dataType="Byte")


def alpha_of(src: Any) -> int | None:
    """The band that says how opaque pixels are, if an open raster has one.

    GDAL takes the fourth band of 8-bit GeoTIFFs for that, which is not so where its name says that it is light.
    """
    alphas = [number for number, kind in enumerate(src.colorinterp, start=1) if kind == ColorInterp.alpha]
    names = src.descriptions if alphas else ()
    return next((number for number in alphas if not _NOT_ALPHA.search(names[number - 1] or "")), None)


def palette_of(src: Any, number: int, name: str) -> dict[int, tuple[int, int, int, int]]:
    """The colours that the numbers of a band stand for. Raises SceneError where the file lacks them."""
    try:
        table: dict[int, tuple[int, int, int, int]] = src.colormap(number)
    except ValueError:
        table = {}
    if not table:
        raise SceneError(f"band {number} of {name} stands for colours of a palette, which the file lacks")
    return table


def is_negative(src: Any) -> bool:
    """Whether a file says that its smallest number is white."""
    return bool(src.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES")


def bits_of(src: Any, number: int) -> str | None:
    """How many bits of its pixel type a band says it uses."""
    found: str | None = src.tags(number, ns="IMAGE_STRUCTURE").get("NBITS")
    return found


def _metadata(parent: Element, tags: Mapping[str, str], domain: str = "") -> None:
    found = SubElement(parent, "Metadata", {"domain": domain} if domain else {})
    for key, value in tags.items():
        SubElement(found, "MDI", key=key).text = value
