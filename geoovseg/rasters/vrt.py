"""VRTs as XML: a raster that is made of others, with all that these say of their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from affine import Affine
from rasterio._path import _parse_path, _vsi_path
from rasterio.crs import CRS
from rasterio.dtypes import _gdal_typename
from rasterio.enums import ColorInterp, MaskFlags

from geoovseg.errors import SceneError
from geoovseg.rasters.band_names import is_light
from geoovseg.rasters.ground import wkt_of


def dataset_like(
    src: Any, shape: tuple[int, int], crs: CRS | None, transform: Affine, tags: Mapping[str, str]
) -> Element:
    """A raster of so many rows and columns, without bands yet, whose numbers mean what those of an open raster do."""
    root = Element("VRTDataset", rasterXSize=str(shape[1]), rasterYSize=str(shape[0]))
    if crs is not None:
        SubElement(root, "SRS").text = wkt_of(crs)
    SubElement(root, "GeoTransform").text = ",".join(repr(float(value)) for value in transform.to_gdal())
    metadata(root, tags)
    metadata(root, {"MINISWHITE": "YES"} if is_negative(src) else {}, "IMAGE_STRUCTURE")
    return root


def band_like(root: Element, src: Any, number: int, nodata: float | None) -> Element:
    """Add a band that says of its numbers what a band of an open raster says, in the order that GDAL wants.

    Which of them is no data is said anew.
    """
    band = SubElement(root, "VRTRasterBand", dataType=_gdal_typename(src.dtypes[number - 1]), band=str(number))
    at = number - 1
    if src.descriptions[at]:
        SubElement(band, "Description").text = src.descriptions[at]
    metadata(band, {"NBITS": bits} if (bits := bits_of(src, number)) else {}, "IMAGE_STRUCTURE")
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


def add_source(
    band: Element,
    src: Any,
    number: str,
    at: tuple[float, float, float, float],
    way: str,
    name: tuple[str, str] | None = None,
) -> None:
    """Where the pixels of a band or mask come from: a band of an open raster, or `mask,1`, as the raster has them.

    `at` is where it lies: column, row, width and height in pixels of the VRT; `way` how GDAL resamples; `name` what is
    to be opened, and `1` where that is relative to the VRT. Overviews are left alone, which a file may have or not.
    """
    source = SubElement(band, "ComplexSource", resampling=way)
    file, relative = name or (source_name(src), "0")
    SubElement(source, "SourceFilename", relativeToVRT=relative, shared="0").text = file
    SubElement(SubElement(source, "OpenOptions"), "OOI", key="OVERVIEW_LEVEL").text = "NONE"
    SubElement(source, "SourceBand").text = number
    if number.isdigit() and src.colorinterp[int(number) - 1] != ColorInterp.alpha:
        _leave_out(source, src, int(number))
    for tag, rect in (("SrcRect", (0, 0, src.width, src.height)), ("DstRect", at)):
        sides = zip(("xOff", "yOff", "xSize", "ySize"), rect, strict=True)
        SubElement(source, tag, {side: format(value, ".15g") for side, value in sides})


def _leave_out(source: Element, src: Any, number: int) -> None:
    """What is no data is not to be mixed with what is."""
    nodata, flags = src.nodatavals[number - 1], src.mask_flag_enums[number - 1]
    if nodata is not None:
        SubElement(source, "NODATA").text = repr(nodata)
    elif MaskFlags.all_valid not in flags and (MaskFlags.alpha not in flags or alpha_of(src) is not None):
        SubElement(source, "UseMaskBand").text = "true"  # also of whole numbers that GDAL keeps apart: 64 bits


def mask_of(whole: Element) -> Element:
    """Add a mask, which counts for all bands of a raster, or for a band."""
    return SubElement(SubElement(whole, "MaskBand"), "VRTRasterBand", dataType="Byte")


def alpha_of(src: Any) -> int | None:
    """The band that says how opaque pixels are, if an open raster has one.

    GDAL takes the fourth band of 8-bit GeoTIFFs for that, which is not so where its name says that it is light.
    """
    alphas = [number for number, kind in enumerate(src.colorinterp, start=1) if kind == ColorInterp.alpha]
    names = src.descriptions if alphas else ()
    return next((number for number in alphas if not is_light(names[number - 1] or "", number)), None)


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


def metadata(parent: Element, tags: Mapping[str, str], domain: str = "") -> None:
    """Add tags, of a domain if that is not the usual one."""
    found = SubElement(parent, "Metadata", {"domain": domain} if domain else {})
    for key, value in tags.items():
        SubElement(found, "MDI", key=key).text = value
