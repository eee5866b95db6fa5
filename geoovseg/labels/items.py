"""Labels as items of a STAC catalogue, so that a labelled archive is one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rasterio.warp import transform_geom

from geoovseg.files import whole
from geoovseg.labels.contents import Counts, legend_of
from geoovseg.labels.read import category_names
from geoovseg.labels.record import RunRecord
from geoovseg.rasters.ground import wkt_of
from geoovseg.rasters.open import opened, raster_env
from geoovseg.usage import package_version

STAC = "1.1.0"
EXTENSIONS = [
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("projection/v2.0.0", "classification/v2.0.0", "processing/v1.2.0", "raster/v2.0.0")
]
CATALOGUE = "catalog.json"
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
TYPES = {
    ".tif": COG, ".tiff": COG, ".gpkg": "application/geopackage+sqlite3", ".parquet": "application/vnd.apache.parquet",
    ".geojson": "application/geo+json", ".fgb": "application/vnd.flatgeobuf",
}  # fmt: skip
"""Media types by what a file is called."""
_UNFIT = re.compile(r"[^0-9A-Za-z_-]+")
_WORLD = "EPSG:4326"


def write_item(
    folder: Path, name: str, labels: Path, others: Mapping[str, Path], source: Mapping[str, Any] | None = None
) -> Path:
    """Write the item of a label raster and of what was made with it; `source` is the item of its scene, if any.

    Returns its file. Raises OSError where it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    said = _item(name, labels, others, folder, source)
    with whole(path) as part:
        part.write_text(json.dumps(said, indent=1, ensure_ascii=False), encoding="utf-8")
    return path


def write_catalogue(folder: Path) -> Path:
    """Write the catalogue of the items in a folder. Raises OSError."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(".json"))
    items = [
        {"rel": "item", "href": f"./{name}", "type": "application/geo+json"} for name in names if name != CATALOGUE
    ]
    own = {"rel": "root", "href": f"./{CATALOGUE}", "type": "application/json"}
    said = {
        "type": "Catalog",
        "stac_version": STAC,
        "id": "labels",
        "description": "Label rasters by geoovseg",
        "links": [own, *items],
    }
    with whole(folder / CATALOGUE) as part:
        part.write_text(json.dumps(said, indent=1), encoding="utf-8")
    return folder / CATALOGUE


def _item(
    name: str, labels: Path, others: Mapping[str, Path], folder: Path, source: Mapping[str, Any] | None
) -> dict[str, Any]:
    with raster_env(), opened(str(labels), str(labels)) as src:
        record, place = RunRecord.of(src), _place(src)
        classes, band = [*_classes(src)], {"data_type": src.dtypes[0], "nodata": src.nodata}
    assets = {"labels": {**_asset(labels, folder, "Labels"), "classification:classes": classes, "bands": [band]}}
    assets |= {key: _asset(path, folder, key.capitalize()) for key, path in others.items()}
    return {
        "type": "Feature",
        "stac_version": STAC,
        "stac_extensions": EXTENSIONS,
        "id": name,
        **{key: place.pop(key) for key in ("geometry", "bbox") if key in place},
        "properties": {**_when(source, labels), **place, **_processing(record)},
        "links": [*_links(source)],
        "assets": assets,
    }


def _place(src: Any) -> dict[str, Any]:
    """Where a raster is: its outline in degrees, and its grid as it is."""
    grid = {"proj:shape": [src.height, src.width], "proj:transform": [round(n, 12) for n in tuple(src.transform)]}
    if src.crs is None:
        return {"geometry": None, **grid}
    corners = [(0, 0), (0, src.height), (src.width, src.height), (src.width, 0), (0, 0)]
    outline = {"type": "Polygon", "coordinates": [[src.transform @ corner for corner in corners]]}
    found = transform_geom(src.crs, _WORLD, outline, antimeridian_cutting=True, precision=9)
    code = src.crs.to_authority()
    known = {"proj:code": ":".join(code)} if code else {"proj:code": None, "proj:wkt2": wkt_of(src.crs)}
    return {"geometry": found, "bbox": _bbox(found), **known, **grid}


def _bbox(geometry: Mapping[str, Any]) -> list[float]:
    """West, south, east, north; of an outline on both sides of the antimeridian the west is the larger."""
    rings = geometry["coordinates"] if geometry["type"] == "Polygon" else [p[0] for p in geometry["coordinates"]]
    spans = [(min(x for x, *_ in ring), max(x for x, *_ in ring)) for ring in rings]
    ys = [point[1] for ring in rings for point in ring]
    west, east = (max(s[0] for s in spans), min(s[1] for s in spans)) if len(spans) > 1 else spans[0]
    return [west, min(ys), east, max(ys)]


def _classes(src: Any) -> Iterator[dict[str, Any]]:
    """Classes as the extension has them: names without spaces, colours without #."""
    for entry in legend_of(src, Counts(pixels={}, area_m2={}, nodata=0), category_names(src)):
        name = _UNFIT.sub("_", entry.name).strip("_") or f"class_{entry.code}"
        yield {"value": entry.code, "name": name, "title": entry.name, "color_hint": entry.colour[1:].upper()}
    if src.nodata is not None:
        yield {"value": int(src.nodata), "name": "nodata", "title": "no data", "nodata": True}


def _asset(path: Path, folder: Path, title: str) -> dict[str, Any]:
    href = os.path.relpath(path, folder).replace(os.sep, "/")
    return {"href": href, "title": title, "type": TYPES.get(path.suffix, "application/octet-stream"), "roles": ["data"]}


def _when(source: Mapping[str, Any] | None, labels: Path) -> dict[str, Any]:
    """When the scene was taken, as its item says, else when the labels were made."""
    given = (source or {}).get("properties", {})
    times = {key: given[key] for key in ("datetime", "start_datetime", "end_datetime") if key in given}
    made = datetime.fromtimestamp(labels.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return times if "datetime" in times else {"datetime": made}


def _processing(record: RunRecord | None) -> dict[str, Any]:
    software = {"geoovseg": package_version("geoovseg")} if record is None else dict(record.versions)
    lineage = f"{record.method} with {record.model} on {record.scene}" if record is not None else "labels"
    return {"processing:software": software, "processing:lineage": lineage}


def _links(source: Mapping[str, Any] | None) -> Iterator[dict[str, str]]:
    yield {"rel": "root", "href": f"./{CATALOGUE}", "type": "application/json"}
    for link in (source or {}).get("links", ()):
        if isinstance(link, Mapping) and link.get("rel") == "self":
            yield {"rel": "derived_from", "href": str(link["href"]), "type": "application/geo+json"}
