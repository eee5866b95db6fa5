"""Trident: affinity, splice, refinement and labels equal the release; what is made in rows is what it is whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from golden_cases import (
    TINY_SAM,
    Case,
    assert_close,
    build,
    case_id,
    check,
    clip_model,
    find,
    named_tolerance,
    sam_model,
    small_sam,
    vision_model,
)
from torch.nn import functional as F
from windows import random_batch

from geoovseg.methods.blocks import Cut
from geoovseg.methods.published import Protocol, predict
from geoovseg.methods.refinement import Refinement, find_regions, halved, mask_prompt, prompts, refine
from geoovseg.methods.releases import refine_published, trident_canvas, trident_frame
from geoovseg.methods.trident import Trident, _whole_patches, aggregated
from geoovseg.models.patches import own_grid
from geoovseg.models.sam import Sam
from geoovseg.models.vfm import ClipVfm
from geoovseg.models.vit import ClipVit
from geoovseg.ops.affinity import affinity_rows
from geoovseg.ops.correlation import mean_likeness, proxy_rows
from geoovseg.ops.pamr import pamr


def _flat(values: torch.Tensor) -> torch.Tensor:
    """Values (1, heads, h, w, d) of a case as (heads, N, d)."""
    return values[0].flatten(1, 2)


@pytest.mark.golden
@pytest.mark.parametrize("case", find("trident_affinity"), ids=case_id)
def test_affinity_equals_the_release(case: Case) -> None:
    attention, variants = case.inputs["attn"][0], case.meta["hyperparameters"]["variants"]
    assert set(case.outputs) == set(variants)
    for name, given in variants.items():
        rows = affinity_rows(
            attention.split(5, dim=1),
            _flat(case.inputs[given["values"]]),
            given["cos_fac"],
            keep_negative=given["refine_neg_cos"],
        )
        assert_close(torch.cat(list(rows)), case.outputs[name], case.meta["tolerance"])


class _Given:
    """SAM's last block as a case gives it."""

    def __init__(self, values: torch.Tensor, attention: torch.Tensor) -> None:
        self.grid = tuple(values.shape[2:4])
        self._values, self._attention = _flat(values), attention[0]

    def values(self, seen: Any) -> torch.Tensor:
        return self._values

    def attention(self, seen: Any) -> tuple[torch.Tensor, ...]:
        return self._attention.split(7, dim=1)


class _Features:
    """A vision model that was asked before."""

    def __init__(self, features: torch.Tensor, patch: int) -> None:
        self._features, self.patch, self._done = features, patch, 0

    def features(self, pixels: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Windows come in order; the last ones are repeated."""
        index = (self._done + torch.arange(len(pixels))) % len(self._features)
        self._done += len(pixels)
        return self._features[index].flatten(2).mT


def _splicing(case: Case) -> Trident:
    hyper, clip = case.meta["hyperparameters"], clip_model(case)
    seen = case.inputs["vfm_features"]
    vfm = _Features(seen, hyper["slide_crop"] // seen.shape[2])
    settings = {k: hyper[k] for k in ("beta", "gamma", "cos_fac", "refine_neg_cos")}
    cut = Cut(window=hyper["slide_crop"], stride=hyper["slide_stride"], block=1024)
    return build(clip, "trident", vfm=vfm, sam=_Side(), cut=cut, **settings)


class _Side:
    side, patch = 1024, 16


@pytest.mark.golden
@pytest.mark.parametrize("case", find("trident_splice"), ids=case_id)
def test_the_splice_and_its_aggregation_equal_the_release(case: Case) -> None:
    method, hyper, tolerance = _splicing(case), case.meta["hyperparameters"], case.meta["tolerance"]
    image = case.inputs["image_u8"].permute(2, 0, 1)[None].float() / 255
    splicer = method.splicer
    boxes = splicer.boxes((image.shape[2], image.shape[3]))
    values, features, grid = splicer.look(image, boxes)
    mixed = splicer.mixed(values, features)
    patches = (image.shape[2] // hyper["patch"], image.shape[3] // hyper["patch"])
    spliced = splicer.splice(mixed, grid, boxes, patches)
    rows = proxy_rows(features, beta=hyper["beta"], gamma=hyper["gamma"], mean=mean_likeness(features).mean())
    found = {"windows_xyxy_tokens": torch.tensor(boxes), "window_features": mixed[[0, -1]], "spliced": spliced}
    found["proxy_attention_rows"] = torch.cat(list(rows), dim=1)[[0, -1], ::9]
    sides = ("left", "right") if hyper["halves"] else ("",)
    cut = spliced.chunk(len(sides), dim=3)
    parts = []
    for side, canvas in zip(sides, cut, strict=True):
        name = f"_{side}" if side else ""
        given: Any = _Given(case.inputs[f"sam_v{name}"], case.inputs[f"sam_attn{name}"])
        rows = affinity_rows(
            given.attention(None), given.values(None), hyper["cos_fac"], keep_negative=method.refine_neg_cos
        )
        found[f"affinity{name}"] = torch.cat(list(rows))
        found["spliced_on_sam_grid"] = F.interpolate(canvas, size=given.grid, mode="bilinear", align_corners=False)
        part = aggregated(canvas, given, given, hyper["cos_fac"], keep_negative=method.refine_neg_cos)
        parts.append(part.unflatten(0, given.grid))
    found["aggregated"] = torch.cat(parts, dim=1).flatten(0, 1)
    found["features"] = method.features(found["aggregated"])
    for name, expected in case.outputs.items():
        exact = tolerance.get(name) == "exact"
        limits = {"atol": 0, "rtol": 0} if exact else {k: tolerance[k] for k in ("atol", "rtol")}
        assert_close(found[name], expected, limits)


def _settings(given: dict[str, Any], layout: str = "official") -> Refinement:
    return Refinement(
        coarse=given["coarse_thresh"],
        area=given["minimal_area"],
        quality=given["sam_iou_thresh"],
        alpha=given["sam_mask_coff"],
        layout=layout,  # type: ignore[arg-type]
    )


@pytest.mark.golden
@pytest.mark.parametrize("case", find("trident_refine"), ids=case_id)
def test_refinement_equals_the_release(case: Case) -> None:
    sam, image = sam_model(case), case.inputs["image_u8"].numpy()
    seen = sam.see(image)
    shares, labels = case.inputs["prob"].float(), case.inputs["pred"].long()
    assert_close(
        seen.embedding[0, :, ::8, ::8],
        case.outputs["image_embedding_sub"],
        named_tolerance(case, "image_embedding_sub"),
    )
    for name, given in case.meta["hyperparameters"]["variants"].items():
        settings = _settings(given)
        small, half = halved(labels, shares, settings.coarse)
        regions = list(find_regions(small, half, settings))
        points, boxes = prompts(sam, regions, tuple(half.shape[1:]))
        present = sorted({r.channel for r in regions})
        masks = {c: mask_prompt(half[c], tuple(labels.shape), 256, settings) for c in present}
        answers = [
            answer
            for c in present
            for answer in sam.prompted(
                seen,
                points[[r.channel == c for r in regions]],
                boxes[[r.channel == c for r in regions]],
                masks[c],
            )
        ]
        refined = refine(sam, seen, labels, shares, settings)
        official = refine_published(refined, shares)
        found = {
            "regions": torch.tensor([[r.channel, r.area, *r.box, *r.point] for r in regions]).float(),
            "box_prompts_1024": boxes,
            "point_prompts_1024": points,
            "mask_prompts_256": torch.cat([masks[c] for c in present])[:, ::8, ::8],
            "iou_scores": torch.cat([quality for _, quality in answers]),
            "low_res_logits_sub": torch.cat([logits[:, 0] for logits, _ in answers])[:, ::16, ::16],
        }
        for output, value in found.items():
            expected, limits = case.outputs[f"{name}.{output}"], named_tolerance(case, output)
            assert_close(value, expected, {"atol": limits.get("atol", 0), "rtol": limits.get("rtol", 0)})
        same = (refined.labels == case.outputs[f"{name}.labels"]).float().mean()
        assert same >= named_tolerance(case, "labels")["agreement"]
        off = (official[:, ::5, ::5] - case.outputs[f"{name}.scores"]).abs().mean()
        assert off <= named_tolerance(case, "scores")["mean"]


@pytest.mark.golden
@pytest.mark.parametrize("case", find("trident_e2e"), ids=case_id)
def test_images_get_the_labels_of_the_release(case: Case) -> None:
    hyper, clip, sam = case.meta["hyperparameters"], clip_model(case), sam_model(case)
    settings = {k: hyper[k] for k in ("beta", "gamma", "cos_fac", "refine_neg_cos")}
    cut = Cut(window=hyper["slide_crop"], stride=hyper["slide_stride"], block=1024)
    vfm, text = vision_model(case, "dino"), case.inputs["text_features"]
    method = build(clip, "trident", text, vfm=vfm, sam=sam, cut=cut, **settings)
    original = case.inputs["image_u8"].numpy()
    frame = trident_frame(original, clip.patch)
    seen = sam.see(frame)
    image = case.inputs["test_image_u8"].permute(2, 0, 1)[None].float() / 255
    canvas = trident_canvas(image, clip.patch, hyper["slide_crop"])
    boxes = method.splicer.boxes((canvas.shape[2], canvas.shape[3]))
    windows = [canvas[..., a * clip.patch : c * clip.patch, b * clip.patch : d * clip.patch] for a, b, c, d in boxes]
    grid = own_grid(windows[0], vfm.patch)
    rows = torch.cat(list(sam.attention(seen)), dim=1)[:, case.outputs["sam_rows"].long()]
    values = sam.values(seen).unflatten(1, seen.grid)
    patches = (canvas.shape[2] // clip.patch, canvas.shape[3] // clip.patch)
    looked, features, _ = method.splicer.look(canvas, boxes)
    spliced = method.splicer.splice(method.splicer.mixed(looked, features), grid, boxes, patches)
    whole = aggregated(spliced, sam, seen, hyper["cos_fac"], keep_negative=hyper["refine_neg_cos"])
    cosines = method.cosines([seen], canvas)
    size = original.shape[:2]
    logits = F.interpolate(cosines[None], size=size, mode="bilinear", align_corners=False)
    groups = torch.bincount(case.inputs["query_to_class"]).tolist()
    protocol = Protocol(scale=hyper["logit_scale"], threshold=hyper["prob_thd"])
    labels, shares = predict(logits, groups, protocol)
    refined = refine(sam, seen, labels[0], shares[0], _settings(hyper))
    found = {
        "sam_input_u8": torch.from_numpy(frame),
        "sam_attn_rows": rows,
        "sam_values": values[:, ::4, ::4],
        "dino_features": torch.cat([vfm.features(w, grid).mT.unflatten(2, grid) for w in windows]),
        "windows_xyxy_tokens": torch.tensor(boxes),
        "features_sub": method.features(whole).unflatten(0, seen.grid)[::4, ::4],
        "logits_sub": logits[0, :, ::5, ::5],
        "prob_sub": shares[0, :, ::5, ::5],
        "pred": labels[0],
        "refined_pred": refined.labels,
        "refined_scores_sub": refine_published(refined, shares[0])[:, ::5, ::5],
        "sam_rows": case.outputs["sam_rows"],
    }
    for name, expected in case.outputs.items():
        check(found[name], expected, case, name)
    assert torch.equal(cosines, method.cosines([seen], canvas, torch.ones(size, dtype=torch.bool)))


@pytest.mark.parametrize(("height", "width"), [(31, 600), (16, 512), (128, 128), (200, 90)])
def test_scenes_of_any_shape_are_seen_in_whole_patches(height: int, width: int, tiny_vit: ClipVit) -> None:
    """A low scene fills less than a patch of SAM's frame; what fills it up is cut off again."""
    torch.manual_seed(5)
    sam, vfm = Sam(small_sam(TINY_SAM).eval().requires_grad_(False)), ClipVfm("clip", tiny_vit)
    text = F.normalize(torch.randn(4, 16, generator=torch.Generator().manual_seed(5)), dim=-1)
    method = build(tiny_vit, "trident", text, vfm=vfm, sam=sam, cut=Cut(block=640), sam_iou_thresh=-10)
    scores = method.scores(random_batch(1, height, width))
    assert scores.shape == (1, 4, height, width)
    assert torch.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (scores.sum(1) > 0).all()


def test_what_is_brighter_on_one_side_stays_there(tiny_vit: ClipVit) -> None:
    """Filling up a block does not move what is in it: features of the filled part start where the block ends."""
    sam = Sam(small_sam(TINY_SAM))
    pixels, valid = np.zeros((3, 31, 600), np.float32), np.ones((31, 600), bool)
    filled, known = _whole_patches(pixels, valid, sam)
    assert filled.shape == (3, 75, 600)  # a patch of SAM's is 600 / 128 * 16 pixels
    assert (filled[:, :31] == 0).all()
    assert known.sum() == 31 * 600
    assert sam.see((filled * 255).astype(np.uint8).transpose(1, 2, 0)).grid == (1, 8)


def _tiny(vit: ClipVit, **settings: Any) -> Trident:
    torch.manual_seed(5)
    sam, vfm = Sam(small_sam(TINY_SAM).eval().requires_grad_(False)), ClipVfm("clip", vit)
    text = F.normalize(torch.randn(4, 16, generator=torch.Generator().manual_seed(5)), dim=-1)
    method: Trident = build(vit, "trident", text, vfm=vfm, sam=sam, cut=Cut(block=128), **settings)
    return method


def test_patches_can_be_averaged_by_likeness_or_attention_alone() -> None:
    """Table 3: cosines above the threshold, or all attention; rows add to 1, heads are averaged before."""
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(3, 7, 5, generator=generator)
    weights = torch.rand(3, 7, 7, generator=generator)
    alike = F.normalize(values, dim=-1)
    cosines = torch.einsum("hid,hjd->hij", alike, alike)
    limit = 1.2 * cosines.mean((0, 2))
    for matrices, expected in (
        ("cosine", cosines.where(cosines > limit[:, None], 0).mean(0)),
        ("attention", weights.mean(0)),
    ):
        rows = affinity_rows(weights.split(3, dim=1), values, 1.2, keep_negative=True, matrices=matrices)
        torch.testing.assert_close(torch.cat(list(rows)), expected / expected.sum(-1, keepdim=True))


def test_the_spliced_map_can_be_left_as_it_is(tiny_vit: ClipVit) -> None:
    method = _tiny(tiny_vit, matrices="none")
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    seen, canvas = method.looks(np.zeros((128, 128, 3), np.uint8)), method.canvas(image)
    boxes, patches = method.splicer.boxes(tuple(canvas.shape[2:])), tuple(side // 8 for side in canvas.shape[2:])
    values, features, grid = method.splicer.look(canvas, boxes)
    spliced = method.splicer.splice(method.splicer.mixed(values, features), grid, boxes, patches)
    on_sam = F.interpolate(spliced, size=seen[0].grid, mode="bilinear", align_corners=False)
    expected = method.read(on_sam[0].flatten(1).T).T.unflatten(1, seen[0].grid)
    torch.testing.assert_close(method.cosines(seen, canvas), expected)


def test_patches_of_a_window_can_keep_their_own_values(tiny_vit: ClipVit) -> None:
    """As MaskCLIP: the output projection of each patch's value, whatever the vision model sees."""
    splicer = _tiny(tiny_vit, mixing="maskclip").splicer
    values, features = torch.rand(2, 9, tiny_vit.width), torch.rand(2, 9, 5)
    projection = tiny_vit._tower.transformer.resblocks[-1].attn.out_proj
    torch.testing.assert_close(splicer.mixed(values, features), projection(values))


def test_halves_are_seen_apart_and_put_side_by_side(tiny_vit: ClipVit) -> None:
    method = _tiny(tiny_vit, halves=True)
    picture = np.random.default_rng(3).integers(0, 256, (128, 128, 3), np.uint8)
    seen = method.looks(picture)
    canvas = torch.rand(1, 3, 96, 96)
    found = method.cosines(seen, canvas)
    assert found.shape[2] == seen[0].grid[1] + seen[1].grid[1]
    left = method.sam.see(np.ascontiguousarray(picture[:, :64]))
    assert torch.equal(left.embedding, seen[0].embedding)
    boxes = method.splicer.boxes((96, 96))
    values, features, grid = method.splicer.look(canvas, boxes)
    spliced = method.splicer.splice(method.splicer.mixed(values, features), grid, boxes, (12, 12))
    part = aggregated(spliced[..., :6], method.sam, left, method.cos_fac, keep_negative=True)
    torch.testing.assert_close(found[:, :, : left.grid[1]], method.read(part).T.unflatten(1, left.grid))


@pytest.mark.parametrize("kinds", [("point",), ("box",), ("mask",), ("point", "box"), ("box", "mask")])
def test_sam_is_given_the_prompts_that_are_chosen(tiny_vit: ClipVit, kinds: tuple[str, ...]) -> None:
    """As its own prompt encoder and decoder answer them one by one."""
    sam = _tiny(tiny_vit).sam
    seen = sam.see(np.random.default_rng(3).integers(0, 256, (128, 128, 3), np.uint8))
    points, boxes = torch.tensor([[20.0, 30.0], [90.0, 70.0]]), torch.tensor([[5.0, 5, 40, 50], [60, 50, 120, 99]])
    mask = torch.rand(1, 1, *sam.model.prompt_encoder.mask_input_size)
    ((found, quality),) = sam.prompted(seen, points, boxes, mask, kinds)
    assert len(found) == len(quality) == 2
    for n in range(2):
        sparse, dense = sam.model.prompt_encoder(
            points=(points[n : n + 1, None], torch.ones(1, 1)) if "point" in kinds else None,
            boxes=boxes[n : n + 1] if "box" in kinds else None,
            masks=mask if "mask" in kinds else None,
        )
        alone, _ = sam.model.mask_decoder(
            image_embeddings=seen.embedding, image_pe=sam.model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse, dense_prompt_embeddings=dense, multimask_output=False,
        )  # fmt: skip
        torch.testing.assert_close(found[n], alone[0], rtol=1e-4, atol=1e-4)


def test_scores_can_follow_colours_before_they_are_shares(tiny_vit: ClipVit) -> None:
    batch = random_batch(1, 128, 128)
    plain, refined = (_tiny(tiny_vit, refine=False, pamr_steps=n) for n in (0, 3))
    pixels = torch.from_numpy(batch.pixels)
    logits = plain.scores(batch).log() / 40
    expected = pamr(tiny_vit.normalise(pixels), logits, steps=3)
    torch.testing.assert_close(refined.scores(batch), (40 * expected).softmax(1), rtol=1e-3, atol=1e-5)
