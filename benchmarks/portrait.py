"""The fast paths of the portrait generator against their plain references, on a synthetic body."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.harness import Row, alternate, at_least, at_most, seconds, speedup
from benchmarks.memory import peak_bytes
from models.portrait import Latents, PortraitConfig, PortraitGenerator, Rays, Rendering, backward_in_bands
from models.portrait_cameras import FACE_VIEW, PORTRAIT_VIEW, ViewConfig, follow, view_label
from models.portrait_pose import Body, NearestTransforms, TransformVolume, bake_transforms
from models.render.manifolds import crossings, crossings_reference, level_values
from models.stylegan import Precision

_SIDE = 128  # paper, Section 3.6: first stage
_VERTICES = 3595  # AniPortraitGAN: SMPL vertices near the portrait
_PUBLIC_SIDE, _PUBLIC_ROWS, _PUBLIC_SHEETS = 256, 16, 2  # of GRAM's picture, and what is measured of it; likewise of 24
_BAND_SIDE, _BAND_ROWS = 32, 4  # a small picture, for its whole backward pass must fit a laptop beside other work


def _toy_body(count: int) -> Body:
    """A turned head on shoulders: a ball and a box, with a blend where they meet."""
    g = torch.Generator().manual_seed(0)
    ball = torch.nn.functional.normalize(torch.randn(count // 2, 3, generator=g), dim=-1) * 0.09
    box = (torch.rand(count - count // 2, 3, generator=g) - 0.5) * torch.tensor([0.4, 0.16, 0.12])
    vertices = torch.cat([ball, box + torch.tensor([0.0, -0.18, -0.08])])
    up = ((vertices[:, 1] + 0.12) / 0.05).clamp(0, 1)
    weights = torch.stack([1 - up, up], dim=-1)
    angle = torch.tensor(0.3)
    turn = torch.eye(4)
    turn[0, 0] = turn[2, 2] = angle.cos()
    turn[0, 2], turn[2, 0] = angle.sin(), -angle.sin()
    transforms = torch.stack([torch.eye(4), turn])[None]
    blended = torch.einsum("vj,jab->vab", weights, transforms[0])
    posed = (blended[:, :3, :3] @ vertices.unsqueeze(-1)).squeeze(-1) + blended[:, :3, 3]
    return Body(posed[None], weights, transforms, head=1)


def _codes(config: PortraitConfig) -> Latents:
    g = torch.Generator().manual_seed(0)
    sizes = ((config.identity,), (config.shape,), (config.expression,), (config.joints, 3), (config.noise,))
    return Latents(*(torch.randn(1, *size, generator=g) for size in sizes))


def _views(body: Body) -> list[tuple[Tensor, ViewConfig]]:
    """The portrait and the face camera of a body."""
    zero = torch.zeros(1)
    face = follow(view_label(FACE_VIEW, zero, zero), body.head_transform)
    return [(view_label(PORTRAIT_VIEW, zero, zero), PORTRAIT_VIEW), (face, FACE_VIEW)]


def _crossing_rows() -> list[Row]:
    rows, levels = [], level_values(23.0, 8.0, 24)
    for samples in (64, 256):  # GRAM's number of samples on a ray, and the AniPortraitGAN release's
        noise = torch.randn(1, 64 * 64, samples, generator=torch.Generator().manual_seed(0))
        field = torch.linspace(26, 5, samples) + 0.3 * noise
        fast, plain = crossings(field, levels), crossings_reference(field, levels)
        equal = float(torch.equal(fast.fraction, plain.fraction) and torch.equal(fast.valid, plain.valid))
        times = alternate(partial(crossings, field, levels), partial(crossings_reference, field, levels), 15)
        rows.append(speedup(f"portrait/crossings of 24 levels, {samples} samples", *times, 5))
        rows.append(at_least(f"portrait/crossings equal, {samples} samples", equal, "share", 1))
    return rows


def _skinning_rows(generator: PortraitGenerator, body: Body) -> list[Row]:
    """Transforms for the half-resolution samples of both cameras of one character, baking included."""
    points = []
    for label, view in _views(body):
        grid = generator.sample_rays(label, view, _SIDE)[0].permute(0, 4, 3, 1, 2)
        points.append(torch.nn.functional.avg_pool3d(grid, 2).flatten(2).transpose(1, 2).contiguous())
    plain = NearestTransforms(body.vertices, body.inverse_transforms())
    centre = torch.tensor(PORTRAIT_VIEW.pivot)
    half = generator.config.pose.volume_half_side

    def bake() -> TransformVolume:
        return bake_transforms(body, centre - half, centre + half, generator.config.pose.volume_resolution)

    def baked() -> list[Tensor]:
        volume = bake()
        return [volume.at(p) for p in points]

    volume = bake()
    both = alternate(baked, lambda: [plain.at(p) for p in points], 3)
    reading = alternate(lambda: volume.at(points[0]), lambda: plain.at(points[0]), 3)
    sample = points[0][:, :: len(points[0][0]) // 5000]
    step = 2 * half / (generator.config.pose.volume_resolution - 1)
    grid = torch.stack(torch.meshgrid(*[torch.tensor([-step, 0, step])] * 3, indexing="ij"), dim=-1).reshape(-1, 3)
    here = plain.at(sample)
    spread = torch.stack([(plain.at(sample + a) - here).abs().amax(-1) for a in grid]).amax(0)
    close = ((volume.at(sample) - here).abs().amax(-1) < 1e-3)[spread < 1e-3].float().mean().item()
    return [
        speedup("portrait/skinning of both cameras, baking included", *both, 5),
        speedup("portrait/skinning from a baked pose", *reading, 5),
        at_least("portrait/baked skinning, equal outside seams", close, "share", 0.999),
    ]


def _peak(rows: int) -> int:
    """Most bytes held in the backward pass of one picture, by bands of so many rows."""
    torch.manual_seed(0)
    generator = PortraitGenerator(PortraitConfig())
    body = _toy_body(400)  # few vertices: finding the nearest must not set the peak
    label, view = _views(body)[0]
    rays = generator.cast(generator.pose.lookup(body), label, view, _BAND_SIDE)
    styles, gradient = generator.styles(_codes(generator.config)), torch.ones(1, 3, _BAND_SIDE, _BAND_SIDE)
    return peak_bytes(partial(backward_in_bands, generator, rays, styles, view.far, gradient, rows))


def _memory_row() -> Row:
    share = _peak(_BAND_ROWS) / _peak(_BAND_SIDE)
    return at_most("portrait/memory of bands over whole picture", share, "share", 0.4)


def _time_rows(generator: PortraitGenerator, body: Body) -> list[Row]:
    """Absolute times of a 128^2 portrait. Public code on two cores: 20.3 s for deformation and crossings."""
    label, view = _views(body)[0]
    with torch.no_grad():
        styles, lookup = generator.styles(_codes(generator.config)), generator.pose.lookup(body)

        def surface() -> None:
            generator.surface(generator.cast(lookup, label, view, _SIDE), styles)

        surface()
        return [Row("portrait/deformation and crossings, 128^2", seconds(surface), "s")]


def _forward(precision: Precision, rows: int) -> tuple[Callable[[], Rendering], Callable[[], Rendering]]:
    """Shading some rows of the middle of GRAM's picture, and all of it."""
    torch.manual_seed(0)
    generator = PortraitGenerator(PortraitConfig(precision=precision))
    label, view = _views(_toy_body(400))[1]
    styles = generator.styles(_codes(generator.config))
    rays, middle = Rays(*generator.sample_rays(label, view, _PUBLIC_SIDE)), _PUBLIC_SIDE // 2
    part = rays.rows(middle, middle + rows)
    return partial(generator.shade, part, styles, view.far), partial(generator.shade, rays, styles, view.far)


def _enlargement(sheets: int) -> Callable[[], Tensor]:
    """U over some manifolds."""
    torch.manual_seed(0)
    generator = PortraitGenerator(PortraitConfig(), upsample=True)
    styles, config = generator.styles(_codes(generator.config)), generator.config.atlas
    some = torch.rand(1, sheets, 4 + generator.config.radiance.features, config.resolution, config.resolution)
    return partial(generator.enlarge, some, styles)


@torch.no_grad()
def _public_rows() -> list[Row]:
    """Whole pictures beside the public code on two cores: a part is measured, and the time of all parts given.

    Rays are shaded by themselves and manifolds are enlarged by themselves, so the parts are alike.
    """
    found, pictures = [], []
    precisions: tuple[Precision, ...] = ("float32", "half")
    for precision in precisions:
        part, whole = _forward(precision, _PUBLIC_ROWS)
        pictures.append(part().image)
        shaded = _PUBLIC_SIDE // _PUBLIC_ROWS * seconds(part)
        name = f"portrait/forward of 256^2 without pose, {precision}"
        found.append(at_most(name, shaded, "s", 46.6 / 4))  # GRAM: 46.6 s
    noise = (pictures[0] - pictures[1]).square().mean().item()
    found.append(at_least("portrait/half precision beside float32", 10 * math.log10(4 / noise), "dB", 45))
    held = peak_bytes(whole) / 1e9
    found.append(at_most("portrait/memory of that forward", held, "GB", 10.1 / 4))  # GRAM: 10.1 GB
    enlarge = _enlargement(_PUBLIC_SHEETS)
    enlarge()
    enlarged = PortraitConfig().manifolds.count // _PUBLIC_SHEETS * seconds(enlarge)
    found.append(at_most("portrait/enlargement of 24 manifolds", enlarged, "s", 30 / 4))  # AniPortraitGAN: 30 s
    return found


def rows() -> list[Row]:
    """All rows of the portrait system."""
    torch.manual_seed(0)
    generator, body = PortraitGenerator(PortraitConfig()), _toy_body(_VERTICES)
    rows = [*_crossing_rows(), *_skinning_rows(generator, body), _memory_row(), *_time_rows(generator, body)]
    return [*rows, *_public_rows()]
