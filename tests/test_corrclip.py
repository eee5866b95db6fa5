"""CorrCLIP: likeness, scope, branches, labels and map correction equal the release."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from golden_cases import Case, build, case_id, check, clip_model, find, vision_model
from torch.nn import functional as F
from windows import Largest

from geoovseg.methods import releases
from geoovseg.methods.corrclip import CorrClip, CorrClipBlocks, merge_regions, reconstructed, spatial_blocks
from geoovseg.methods.published import Protocol, predict, slide
from geoovseg.models.vfm import ClipVfm
from geoovseg.models.vit import ClipVit
from geoovseg.windows.plan import origins


def _method(case: Case) -> tuple[CorrClipBlocks, dict[str, Any]]:
    hyper = case.meta["hyperparameters"]
    settings = {"tau": hyper["tau"], "distance": hyper["dbscan_eps"], "alpha": hyper["alpha"], "beta": hyper["beta"]}
    vfm, text = vision_model(case, "dino"), case.inputs["text_features"]
    return build(clip_model(case), "corrclip", text, vfm=vfm, regions="none", **settings), hyper


def _watched(image: torch.Tensor, see: Any, windows: list[torch.Tensor], more: dict[str, Any]) -> torch.Tensor:
    """The release's windows, which are kept."""

    def watching(window: torch.Tensor) -> torch.Tensor:
        windows.append(window)
        return see(window)

    return slide(image, watching, **more)


def test_patches_that_are_all_alike_attend_to_each_other_or_to_themselves() -> None:
    """Of identical patches none exceeds the mean likeness; one patch is such a case."""
    for count in (1, 16):
        weights = reconstructed(torch.ones(count, 1), torch.zeros(count, dtype=torch.long), 4)
        torch.testing.assert_close(weights.sum(1), torch.ones(count))


@pytest.mark.golden
@pytest.mark.parametrize("case", find("corrclip"), ids=case_id)
def test_images_get_the_labels_of_the_release(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    method, hyper = _method(case)
    clip, encoder = method.clip, method.encoder
    resized, ids = case.inputs["image_u8"].numpy(), case.inputs["instance_mask"][None, None]
    windows: list[torch.Tensor] = []
    monkeypatch.setattr(releases, "slide", lambda image, see, **more: _watched(image, see, windows, more))
    crop, stride = hyper["slide_crop"], hyper["slide_stride"]
    protocol = Protocol(crop=crop, stride=stride, multiple=hyper["pad_multiple"], scale=hyper["logit_scale"])
    protocol = replace(protocol, threshold=hyper["prob_thd"])
    cosines = releases.corrclip_cosines(method, resized, ids, protocol)
    groups = torch.bincount(case.inputs["query_to_class"]).tolist()
    labels, shares = predict(cosines, groups, protocol)
    window = windows[hyper["window_index"]]
    features, grid = encoder(window[:, :3], releases.numbered_from_none(window[:, 3]))
    seen = encoder.correlated(window[:, :3], grid)[0]
    near = F.interpolate(releases.numbered_from_none(window[:, 3:]).float(), size=grid, mode="nearest").long().flatten()
    results = {
        "window_image_norm_mean": clip.normalise(window[:, :3]).mean((0, 2, 3)),
        "window_mask": window[0, 3],
        "window_dino_qk": seen,
        "window_attention_rows": reconstructed(seen, merge_regions(seen, near, hyper["dbscan_eps"]), hyper["tau"])[::7],
        "window_features": features[0],
        "logits_sub": cosines[0, :, ::5, ::5],
        "prob_sub": shares[0, :, ::5, ::5],
        "pred_before_map_correction": labels[0],
        "pred": releases.majority(labels[0], ids[0, 0]),
    }
    for name, expected in case.outputs.items():
        check(results[name], expected, case, name)
    spatial = spatial_blocks(hyper["num_layers"])
    assert [spatial.start, spatial.stop - 1] == hyper["spatial_blocks"]
    assert (
        len(windows)
        == hyper["windows"]
        == len(origins(max(resized.shape[0], crop), crop, stride))
        * len(origins(max(resized.shape[1], crop), crop, stride))
    )


def test_attention_is_never_copied_for_each_head(tiny_vit: ClipVit) -> None:
    """Windows of 30 x 30 patches: no tensor has all pairs of patches for all heads, nor for more than the windows."""
    vfm = ClipVfm("clip", tiny_vit)
    encoder = CorrClip(clip=tiny_vit, vfm=vfm, tau=4, distance=0.2, alpha=1, beta=0.5)
    pixels = torch.rand(2, 3, 240, 240, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(240)[:, None] // 60 * 10 + torch.arange(240) // 60 + 1
    with Largest() as mode:
        encoder(pixels, ids.expand(2, -1, -1))
    assert mode.largest < tiny_vit.heads * 2 * 900**2
