"""Ways from patches to pixels, on real aerial pairs: `python benchmarks/edges.py FOLDER`, a table in Markdown.

The truth of each pair, a share of every class for each patch of 16 x 16 pixels, times 0.06, as far as cosines of
classes lie apart, with noise of 0, 0.01 and 0.02, stands for scores. Each way brings them back to pixels; told is the
mean IoU over classes. FOLDER has the images of PAIRS, with labels or shapes beside them.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import torch
from rasterio.features import rasterize
from torch import Tensor
from torch.nn import functional as F

from geoovseg.ops.upsample import Reach, bilinear, gathered, guided

PATCH, SPREAD, NOISE, SEEDS = 16, 0.06, (0.0, 0.01, 0.02), 3
PAIRS = {
    "ca2949_buildings_1.tif": "ca2949_buildings_1_label.tif",
    "nb_bakerlake_1.tif": "nb_bakerlake_1_label.tif",
    "sn4_atlanta.tif": "sn4_atlanta_buildings.geojson",
    "sn7_planet.tif": "sn7_planet_buildings.gpkg",
}
Way = Callable[[Tensor, Tensor], Tensor]


def bilateral(space: float, colour: float, radius: int = 2) -> Way:
    """The same taps with other constants."""

    def way(scores: Tensor, pixels: Tensor) -> Tensor:
        total, weights = gathered(scores, pixels, Reach(radius, space, colour), repeat_edge=True, least=1e-12)
        return total / weights

    return way


def adaptive(space: float, factor: float, least: float) -> Way:
    """Colours count by how much they vary around: the reach in colour is so many local standard deviations."""

    def way(scores: Tensor, pixels: Tensor) -> Tensor:
        cells = F.adaptive_avg_pool2d(pixels, scores.shape[-2:])
        squares = F.adaptive_avg_pool2d(pixels.square(), scores.shape[-2:])
        spread = (squares - cells.square()).clamp_min(0).sum(1, keepdim=True)
        around = F.avg_pool2d(F.pad(spread, (1, 1, 1, 1), mode="replicate"), 3, 1)
        reach = bilinear((factor * around.sqrt()).clamp_min(least), pixels)
        return _scaled(scores, pixels, reach, space)

    return way


def _scaled(scores: Tensor, pixels: Tensor, reach: Tensor, space: float) -> Tensor:
    grid = scores.shape[-2:]
    cells = F.adaptive_avg_pool2d(pixels, grid)
    rows = (torch.arange(pixels.shape[2]) + 0.5) * grid[0] / pixels.shape[2]
    cols = (torch.arange(pixels.shape[3]) + 0.5) * grid[1] / pixels.shape[3]
    total = torch.zeros(1, scores.shape[1], *pixels.shape[-2:])
    weights = torch.zeros_like(total[:, :1])
    for dy, dx in itertools.product(range(-2, 3), repeat=2):
        r, c = (rows.floor().long() + dy).clamp(0, grid[0] - 1), (cols.floor().long() + dx).clamp(0, grid[1] - 1)
        far = (rows - r - 0.5).square()[:, None] + (cols - c - 0.5).square()[None]
        colour = ((pixels - cells[:, :, r][:, :, :, c]) / reach).square().sum(1, keepdim=True)
        weight = torch.exp(-far / (2 * space**2) - colour / 2) + 1e-12
        total += weight * scores[:, :, r][:, :, :, c]
        weights += weight
    return total / weights


def smoothed(way: Way, sigma: float) -> Way:
    """A way on a picture without its finest noise."""

    def then(scores: Tensor, pixels: Tensor) -> Tensor:
        reach = int(3 * sigma + 0.5)
        at = torch.arange(-reach, reach + 1).float()
        line = torch.exp(-(at**2) / (2 * sigma**2))
        line = (line / line.sum()).expand(3, 1, -1)
        padded = F.pad(pixels, (reach,) * 4, mode="reflect")
        blurred = F.conv2d(F.conv2d(padded, line[:, :, :, None], groups=3), line[:, :, None, :], groups=3)
        return way(scores, blurred)

    return then


def mixed(one: Way, other: Way, share: float) -> Way:
    """A mean of two ways, `share` of the second."""
    return lambda scores, pixels: (1 - share) * one(scores, pixels) + share * other(scores, pixels)


def linear(radius: int, ridge: float, share: float = 1.0) -> Way:
    """Bilinear, and how scores follow colours among cells around, at the pixel's own colour (a local linear model)."""

    def way(scores: Tensor, pixels: Tensor) -> Tensor:
        cells = F.adaptive_avg_pool2d(pixels, scores.shape[-2:])

        def mean(values: Tensor) -> Tensor:
            padded = F.pad(values, (radius,) * 4, mode="replicate")
            return F.avg_pool2d(padded, 2 * radius + 1, 1)

        colour, score = mean(cells), mean(scores)
        cross = mean(cells[:, :, None].mul(scores[:, None]).flatten(1, 2)).unflatten(1, (3, -1))
        cross = cross - colour[:, :, None] * score[:, None]
        own = mean(cells[:, :, None].mul(cells[:, None]).flatten(1, 2)).unflatten(1, (3, 3))
        own = own - colour[:, :, None] * colour[:, None] + ridge * torch.eye(3)[None, :, :, None, None]
        slope = torch.linalg.solve(own.permute(0, 3, 4, 1, 2), cross.permute(0, 3, 4, 1, 2)).permute(0, 3, 4, 1, 2)
        wide = bilinear(slope.flatten(1, 2), pixels).unflatten(1, (3, -1))
        return bilinear(scores, pixels) + share * (wide * (pixels - bilinear(cells, pixels))[:, :, None]).sum(1)

    return way


WAYS: dict[str, Way] = {
    "bilinear": bilinear,
    "guided (as shipped)": guided,
    "bilateral 0.7, 0.08 (guided before)": bilateral(0.7, 0.08),
    "bilateral 0.45, 0.2": bilateral(0.45, 0.2),
    "bilateral 0.4, 0.15": bilateral(0.4, 0.15),
    "bilateral 0.5, 0.2": bilateral(0.5, 0.2),
    "bilateral 0.5, 0.3": bilateral(0.5, 0.3),
    "adaptive 0.45, 2 deviations": adaptive(0.45, 2, 0.05),
    "adaptive 0.45, 1.5 deviations": adaptive(0.45, 1.5, 0.05),
    "adaptive 0.5, 1.5 deviations": adaptive(0.5, 1.5, 0.05),
    "bilateral 0.45, 0.2, smoothed 1": smoothed(bilateral(0.45, 0.2), 1.0),
    "bilateral 0.45, 0.15, smoothed 1.5": smoothed(bilateral(0.45, 0.15), 1.5),
    "bilateral 0.45, 0.15, smoothed 2": smoothed(bilateral(0.45, 0.15), 2.0),
    "bilateral 0.5, 0.15, smoothed 2": smoothed(bilateral(0.5, 0.15), 2.0),
    "two scales: 0.4, 0.2 and 0.7, 0.1": mixed(bilateral(0.4, 0.2), bilateral(0.7, 0.1), 0.3),
    "linear, 3 x 3, all of it": linear(1, 1e-3),
    "linear, 5 x 5, all of it": linear(2, 1e-3),
    "linear, 5 x 5, 0.75, smoothed 2": smoothed(linear(2, 1e-3, 0.75), 2.0),
}


def pair(image: Path, truth: Path) -> tuple[Tensor, np.ndarray]:
    """Pixels (1, 3, H, W) in 0..1 and codes (H, W) of whole patches; -1 where nothing is known."""
    with rasterio.open(image) as src:
        data, valid = src.read().astype(np.float32), src.dataset_mask() > 0
        if truth.suffix == ".tif":
            with rasterio.open(truth) as other:
                codes = other.read(1).astype(np.int64)
        else:
            shapes = geopandas.read_file(truth).to_crs(src.crs).geometry
            codes = rasterize(list(shapes), src.shape, transform=src.transform).astype(np.int64)
    low, high = np.percentile(data[:, valid], (1, 99))
    light = data / 255 if data.max() > 200 else (data - low) / (high - low)
    codes[~valid] = -1
    height, width = (side // PATCH * PATCH for side in codes.shape)
    return torch.from_numpy(light.clip(0, 1)[None, :, :height, :width]).float(), codes[:height, :width]


def miou(way: Way, pixels: Tensor, codes: np.ndarray, noise: float, seed: int) -> float:
    """The mean IoU over classes of a way, on scores of the truth."""
    names = sorted(set(codes[codes >= 0].tolist()))
    truth = torch.from_numpy(np.stack([codes == name for name in names])[None]).float()
    scores = F.avg_pool2d(truth, PATCH) * SPREAD
    scores = scores + noise * torch.randn(scores.shape, generator=torch.Generator().manual_seed(seed))
    found = way(scores, pixels)[0].argmax(0).numpy()
    known = codes >= 0
    shares = []
    for n, name in enumerate(names):
        mine, theirs = (found == n) & known, codes == name
        shares.append((mine & theirs).sum() / max(1, (mine | theirs).sum()))
    return float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    pairs = {name: pair(folder / name, folder / truth) for name, truth in PAIRS.items()}
    print(f"| way | {' | '.join(name.partition('.')[0] for name in pairs)} | mean | ms a megapixel |")
    print("|---|" + "---|" * (len(pairs) + 2))
    for name, way in WAYS.items():
        start, size, found = time.perf_counter(), 0, []
        for pixels, codes in pairs.values():
            values = [miou(way, pixels, codes, noise, seed) for noise in NOISE for seed in range(SEEDS)]
            found.append(float(np.mean(values)))
            size += codes.size * len(values)
        spent = 1e3 * (time.perf_counter() - start) / (size / 1e6)
        print(f"| {name} | {' | '.join(f'{v:.3f}' for v in found)} | {np.mean(found):.3f} | {spent:.0f} |", flush=True)


if __name__ == "__main__":
    main()
