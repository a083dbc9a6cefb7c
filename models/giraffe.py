"""GIRAFFE: one object in a box and a background, both feature fields, composed, rendered small and enlarged (Eq. 1-4).

Niemeyer and Geiger, "GIRAFFE: Representing Scenes as Compositional Generative Neural Feature Fields", CVPR 2021, as
trained on faces by "Multi-angle Consistent Generative NeRF with Additive Angular Margin Momentum Contrastive Learning"
(equation numbers are of the latter). `models.giraffe_discriminator` holds the other player.

Views. GIRAFFE's camera keeps its azimuth and the object turns in front of it, so the background is always seen from the
front. Here a view is asked for as a camera label about the object, as everywhere in the project (azimuth 0 is the front
of the face, positive azimuth its left side); :func:`turn_object` makes the fixed camera and the turned object of it.

Two paths give the same picture. :meth:`Generator.reference` evaluates every field at every sample, as the equations
say. :meth:`Generator.forward` skips the object's samples outside its box (nine in ten) and applies the last, linear
layer of each field after the sum along the ray instead of before it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from models import camera
from models.config import Config
from models.render.composite import composite, field_weights
from models.render.neural import NeuralRenderer


class FieldConfig(Config):
    """A feature field h_theta (Eq. 2). Defaults: the object's, im2scene/giraffe/models/decoder.py."""

    hidden: int = Field(default=128, ge=4)
    blocks: int = Field(default=8, ge=2)  # layers of the density trunk, the first included
    skips: tuple[int, ...] = (4,)  # after which layers code and point enter again
    point_octaves: int = Field(default=10, ge=1)  # L of Eq. 3 for points
    view_octaves: int = Field(default=4, ge=1)  # L of Eq. 3 for directions
    divisor: float = Field(default=2.0, gt=0)  # points and directions are divided by it before Eq. 3


class GiraffeConfig(Config):
    """All numbers of the two players. Sources: configs/default.yaml and configs/256res/celebahq_256.yaml of the public
    code where nothing else is said."""

    resolution: int = 256
    feature_resolution: int = 16  # models/generator.py: resolution_vol
    feature_channels: int = Field(default=256, ge=4)
    min_channels: int = Field(default=32, ge=1)  # models/neural_renderer.py: min_feat
    z_dim: int = Field(default=256, ge=1)
    z_dim_background: int = Field(default=128, ge=1)
    object_field: FieldConfig = FieldConfig()
    background_field: FieldConfig = FieldConfig(hidden=64, blocks=4, skips=(), divisor=12.0)

    samples: int = Field(default=64, ge=2)  # models/generator.py: n_ray_samples
    near: float = Field(default=0.5, ge=0)  # models/generator.py: depth_range
    far: float = 6.0
    density_noise: float = Field(default=1.0, ge=0)  # models/generator.py: N(0, 1) on densities in training
    fov: float = Field(default=10.0, gt=0, lt=180)  # degrees
    radius: float = Field(default=2.732, gt=0)  # models/generator.py: range_radius

    # p_xi and p_T of Eq. 1. The public ranges are rotation [0.375, 0.625] of a turn, which is +-45 degrees about the
    # front, and range_v [0.4167, 0.5], which is sin(elevation) uniform in [0, 0.1666].
    azimuth: tuple[float, float] = (-45.0, 45.0)  # degrees
    elevation: tuple[float, float] = (0.0, 9.59)  # degrees, uniform on the sphere
    box_scale: tuple[float, float] = (0.21, 0.21)  # half the side of the object's box, world units
    box_translation: tuple[tuple[float, float], ...] = ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0))  # along x, y, z
    box_padding: float = Field(default=0.1, ge=0)  # models/generator.py: padd, in units of half the side

    discriminator_channels: int = Field(default=512, ge=8)  # discriminator/conv.py: n_feat, the width of its last layer
    projection: int = Field(default=128, ge=2)  # length of q and k; unpublished: our choice

    @model_validator(mode="after")
    def _ranges_hold(self) -> GiraffeConfig:
        doublings = math.log2(self.resolution / self.feature_resolution)
        if doublings < 1 or doublings % 1:
            raise ValueError(
                f"resolution {self.resolution} is not feature_resolution {self.feature_resolution} doubled once or more"
            )
        if self.resolution < 16 or self.resolution & (self.resolution - 1):
            raise ValueError(f"resolution {self.resolution} is no power of two from 16 on")
        if not self.near < self.far:
            raise ValueError(f"near {self.near} is not nearer than far {self.far}")
        if len(self.box_translation) != 3:
            raise ValueError("box_translation needs three ranges: along x, y and z")
        for name in ("azimuth", "elevation", "box_scale"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} runs from {low} down to {high}")
        return self


class Latents(NamedTuple):
    """Codes of N scenes (Eq. 1): shape and appearance (N, z_dim), of the background (N, z_dim_background)."""

    shape: Tensor
    appearance: Tensor
    background_shape: Tensor
    background_appearance: Tensor


class View(NamedTuple):
    """How N scenes are looked at: xi and T of Eq. 1.

    Attributes:
        camera: (N, 25) label in the world.
        scale: (N, 3) half sides of the object's box, world units.
        translation: (N, 3) its centre.
        rotation: (N, 3, 3) object to world.
    """

    camera: Tensor
    scale: Tensor
    translation: Tensor
    rotation: Tensor


class Noise(NamedTuple):
    """The random numbers of a training render, for R rays of S samples.

    Attributes:
        jitter: (N, R, S) in [0, 1): where in its stratum each sample lies; 0.5 is its place without noise.
        density: (2, N, R, S) standard normal, for object and background.
    """

    jitter: Tensor
    density: Tensor


def view_label(config: GiraffeConfig, azimuth: Tensor, elevation: Tensor | None = None) -> Tensor:
    """The label of a view from ``azimuth`` and ``elevation``, (...) radians, to give to :meth:`Generator.forward`.

    Without an elevation the middle of the training range is taken, so azimuth 0 is the frontal picture I_c.

    Returns:
        (..., 25) labels at the configured radius and field of view.
    """
    if elevation is None:
        low, high = (math.sin(math.radians(e)) for e in config.elevation)
        elevation = torch.full_like(azimuth, math.asin((low + high) / 2))
    pose = camera.pose_on_sphere(azimuth, elevation, config.radius)
    focal = torch.full_like(azimuth, camera.focal_from_fov(config.fov))
    return camera.pack_label(pose, camera.intrinsics(focal))


def turn_object(
    config: GiraffeConfig, label: Tensor, scale: Tensor | None = None, translation: Tensor | None = None
) -> View:
    """The view in which the object has turned and the camera stands at azimuth 0, seeing what ``label`` sees of it.

    Args:
        config: gives the box where none is given.
        label: (N, 25) camera about the object, whose centre is the origin and whose axes are the world's.
        scale: (N, 3) half sides of the box; the middle of its range if not given.
        translation: (N, 3) centre of the box; the middle of its ranges if not given.
    """
    pose, intrinsic = camera.unpack_label(label)
    azimuth, _, _ = camera.spherical_angles(pose)
    turn = rotation_about_y(-azimuth)
    rigid = torch.zeros_like(pose)
    rigid[..., :3, :3] = turn
    rigid[..., 3, 3] = 1
    if scale is None:
        scale = label.new_full((len(label), 3), sum(config.box_scale) / 2)
    if translation is None:
        translation = label.new_tensor([sum(ends) / 2 for ends in config.box_translation]).expand(len(label), 3)
    with torch.autocast(label.device.type, enabled=False):
        turned = rigid @ pose
    return View(camera.pack_label(turned, intrinsic), scale, translation, turn)


def rotation_about_y(angle: Tensor) -> Tensor:
    """(..., 3, 3) rotations that take +z towards +x by (...) radians."""
    cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    rows = [cos, zero, sin, zero, zero + 1, zero, -sin, zero, cos]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def encode(points: Tensor, octaves: int) -> Tensor:
    """Positional encoding (Eq. 3), frequencies pi to 2**(octaves - 1) pi: (..., D) to (..., 2 D octaves)."""
    frequencies = math.pi * 2.0 ** torch.arange(octaves, device=points.device, dtype=points.dtype)
    phase = (points.unsqueeze(-1) * frequencies).flatten(-2)
    return torch.cat([torch.sin(phase), torch.cos(phase)], dim=-1)


class Style(NamedTuple):
    """What codes and directions add to a field's layers, shaped to be added to (..., hidden) activations."""

    entry: Tensor
    skips: tuple[Tensor, ...]
    view: Tensor


class FeatureField(nn.Module):
    """h_theta (Eq. 2): a point, a direction, a shape and an appearance code to a density and a feature.

    Args:
        config: sizes.
        z_dim: length of both codes.
        channels: length of the feature.
    """

    def __init__(self, config: FieldConfig, z_dim: int, channels: int) -> None:
        super().__init__()
        self.config = config
        hidden, encoded = config.hidden, 6 * config.point_octaves
        self.entry = nn.Linear(encoded, hidden)
        self.entry_code = nn.Linear(z_dim, hidden)
        self.layers = nn.ModuleList([nn.Linear(hidden, hidden) for _ in range(config.blocks - 1)])
        self.skip_layers = [i for i in range(config.blocks - 2) if i + 1 in config.skips]
        self.skip_codes = nn.ModuleList([nn.Linear(z_dim, hidden) for _ in self.skip_layers])
        self.skip_points = nn.ModuleList([nn.Linear(encoded, hidden) for _ in self.skip_layers])
        self.density = nn.Linear(hidden, 1)
        self.appearance = nn.Linear(hidden, hidden)
        self.appearance_code = nn.Linear(z_dim, hidden)
        self.view = nn.Linear(6 * config.view_octaves, hidden)
        self.feature = nn.Linear(hidden, channels)

    def style(self, shape: Tensor, appearance: Tensor, direction: Tensor) -> Style:
        """Of (N, z_dim) codes and (N, R, 3) directions: (N, hidden) for entry and skips, (N, R, hidden) for the view.

        All that does not depend on the point is computed here, once for a scene or a ray.
        """
        seen = self.view(encode(F.normalize(direction, dim=-1) / self.config.divisor, self.config.view_octaves))
        skips = tuple(layer(shape) for layer in self.skip_codes)
        return Style(self.entry_code(shape), skips, seen + self.appearance_code(appearance).unsqueeze(1))

    def trunk(self, points: Tensor, style: Style) -> tuple[Tensor, Tensor]:
        """Densities (...) without noise or ReLU, and (..., hidden) activations under the last layer, at (..., 3)."""
        shape = points.shape[:-1]  # rows of a plain matrix between the sums: in-place ReLU on views would cost copies
        encoded = encode(points / self.config.divisor, self.config.point_octaves).flatten(0, -2)
        x = F.linear(encoded, self.entry.weight).unflatten(0, shape) + (style.entry + self.entry.bias)
        x = x.relu_().flatten(0, -2)
        for i, layer in enumerate(self.layers):
            x = layer(x).relu_()
            if i in self.skip_layers:
                which = self.skip_layers.index(i)
                x = x + self.skip_points[which](encoded)
                x = (x.unflatten(0, shape) + style.skips[which]).flatten(0, -2)
        hidden = (self.appearance(x).unflatten(0, shape) + style.view).relu_()
        return self.density(x).squeeze(-1).unflatten(0, shape), hidden

    def forward(self, points: Tensor, directions: Tensor, shape: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        """Plain: (N, P, 3) points and directions, (N, z_dim) codes to (N, P) densities and (N, P, C) features."""
        encoded = encode(points / self.config.divisor, self.config.point_octaves)
        x = torch.relu(self.entry(encoded) + self.entry_code(shape).unsqueeze(1))
        skips = iter(zip(self.skip_codes, self.skip_points))
        for i, layer in enumerate(self.layers):
            x = torch.relu(layer(x))
            if i in self.skip_layers:
                skip_code, skip_point = next(skips)
                x = x + skip_code(shape).unsqueeze(1) + skip_point(encoded)
        density = self.density(x).squeeze(-1)
        seen = encode(F.normalize(directions, dim=-1) / self.config.divisor, self.config.view_octaves)
        x = self.appearance(x) + self.appearance_code(appearance).unsqueeze(1) + self.view(seen)
        return density, self.feature(torch.relu(x))


class Samples(NamedTuple):
    """Where the fields are asked, for N scenes, R rays, S samples; (N, R, S, 3) points, (N, R, 3) directions."""

    depth: Tensor  # (N, R, S)
    object_points: Tensor  # in units of the box: its inside is [-1, 1]^3
    object_directions: Tensor
    inside: Tensor  # (N, R, S) bool: within the padded box
    world_points: Tensor
    world_directions: Tensor


class Generator(nn.Module):
    """G_theta (Eq. 4): codes and a view to a picture."""

    def __init__(self, config: GiraffeConfig) -> None:
        super().__init__()
        self.config = config
        self.object_field = FeatureField(config.object_field, config.z_dim, config.feature_channels)
        self.background_field = FeatureField(config.background_field, config.z_dim_background, config.feature_channels)
        self.renderer = NeuralRenderer(
            config.feature_channels, config.feature_resolution, config.resolution, config.min_channels
        )

    def sample_latents(self, n: int, generator: torch.Generator) -> Latents:
        """Standard normal codes of ``n`` scenes (Eq. 1), on the generator's device."""
        c = self.config
        sizes = (c.z_dim, c.z_dim, c.z_dim_background, c.z_dim_background)
        return Latents(*(torch.randn(n, size, generator=generator, device=generator.device) for size in sizes))

    def sample_view(self, n: int, generator: torch.Generator) -> View:
        """Views of ``n`` scenes from p_xi and boxes from p_T (Eq. 1), on the generator's device."""
        c = self.config
        draw = torch.rand(6, n, generator=generator, device=generator.device)
        azimuth = between(draw[0], *(math.radians(a) for a in c.azimuth))
        elevation = torch.asin(between(draw[1], *(math.sin(math.radians(e)) for e in c.elevation)))
        scale = between(draw[2], *c.box_scale).unsqueeze(1).expand(n, 3)
        translation = torch.stack([between(u, *ends) for u, ends in zip(draw[3:], c.box_translation)], dim=1)
        return turn_object(c, view_label(c, azimuth, elevation), scale, translation)

    def sample_noise(self, n: int, generator: torch.Generator) -> Noise:
        """The random numbers of a training render of ``n`` scenes, on the generator's device."""
        shape = (n, self.config.feature_resolution**2, self.config.samples)
        jitter = torch.rand(shape, generator=generator, device=generator.device)
        return Noise(jitter, torch.randn((2, *shape), generator=generator, device=generator.device))

    def forward(self, latents: Latents, view: View | Tensor, noise: Noise | None = None) -> Tensor:
        """Pictures, the fast way.

        Args:
            latents: codes of N scenes.
            view: a View, or (N, 25) camera labels about the object, for which the object is turned.
            noise: for training, from :meth:`sample_noise`; without it the picture is a function of codes and view.

        Returns:
            (N, 3, resolution, resolution) in [-1, 1].
        """
        return self.renderer(self.feature_image(latents, view, noise))

    def reference(self, latents: Latents, view: View | Tensor, noise: Noise | None = None) -> Tensor:
        """The plain form of :meth:`forward`, for tests and timings."""
        return self.renderer.reference(self.reference_feature_image(latents, view, noise))

    def samples(self, view: View | Tensor, noise: Noise | None) -> Samples:
        """Stratified samples on the rays of the feature image, in the world and in the object's box."""
        device = view.device if isinstance(view, Tensor) else view.camera.device
        with torch.autocast(device.type, enabled=False):  # matrix products of half precision would move the points
            return self._samples(turn_object(self.config, view) if isinstance(view, Tensor) else view, noise)

    def _samples(self, view: View, noise: Noise | None) -> Samples:
        c = self.config
        origin, direction = camera.rays(view.camera, c.feature_resolution)
        depth = torch.linspace(c.near, c.far, c.samples, device=direction.device, dtype=direction.dtype)
        depth = depth.expand(*direction.shape[:2], c.samples)
        if noise is not None:
            middle = (depth[..., 1:] + depth[..., :-1]) / 2
            low = torch.cat([depth[..., :1], middle], dim=-1)
            high = torch.cat([middle, depth[..., -1:]], dim=-1)
            depth = low + (high - low) * noise.jitter
        world = origin.unsqueeze(2) + depth.unsqueeze(-1) * direction.unsqueeze(2)
        to_box = view.rotation / view.scale.unsqueeze(1)  # x_box = (x - t) R / s for row vectors: k^-1 of Eq. 2
        box_origin, box_direction = (origin - view.translation.unsqueeze(1)) @ to_box, direction @ to_box
        points = box_origin.unsqueeze(2) + depth.unsqueeze(-1) * box_direction.unsqueeze(2)
        inside = (points.abs() <= 1 + c.box_padding).all(dim=-1)
        return Samples(depth, points, box_direction, inside, world, direction)

    def feature_image(self, latents: Latents, view: View | Tensor, noise: Noise | None) -> Tensor:
        """(N, C, side, side) features of the composed scene, the fast way."""
        s = self.samples(view, noise)
        rays = s.inside.shape[1]
        scene, ray, sample = s.inside.nonzero(as_tuple=True)
        style = self.object_field.style(latents.shape, latents.appearance, s.object_directions)
        packed = Style(style.entry[scene], tuple(x[scene] for x in style.skips), style.view[scene, ray])
        raw, object_hidden = self.object_field.trunk(s.object_points[scene, ray, sample], packed)
        raw = self.occupied(raw.to(s.depth), None if noise is None else noise.density[0][scene, ray, sample])
        object_density = torch.zeros_like(s.depth).index_put((scene, ray, sample), raw)

        style = self.background_field.style(latents.background_shape, latents.background_appearance, s.world_directions)
        spread = Style(
            style.entry[:, None, None], tuple(x[:, None, None] for x in style.skips), style.view.unsqueeze(2)
        )
        raw, background_hidden = self.background_field.trunk(s.world_points, spread)
        background_density = self.occupied(raw.to(s.depth), None if noise is None else noise.density[1])

        with torch.autocast(s.depth.device.type, enabled=False):
            weights = field_weights(torch.stack([object_density, background_density]), s.depth)
            weighted = object_hidden.to(s.depth) * weights[0][scene, ray, sample].unsqueeze(-1)
            summed = weighted.new_zeros(s.depth.shape[0] * rays, weighted.shape[-1])
            object_sum = summed.index_add(0, scene * rays + ray, weighted).unflatten(0, (-1, rays))
            background_sum = (weights[1].unsqueeze(2) @ background_hidden.to(s.depth)).squeeze(2)
            total = weights.sum(-1).unsqueeze(-1)
            image = read_out(self.object_field.feature, object_sum, total[0])
            image = image + read_out(self.background_field.feature, background_sum, total[1])
        return self.as_image(image)

    def reference_feature_image(self, latents: Latents, view: View | Tensor, noise: Noise | None) -> Tensor:
        """(N, C, side, side) features of the composed scene: every field at every sample, then :func:`composite`."""
        s = self.samples(view, noise)
        count = s.depth.shape[-1]
        density: list[Tensor] = []
        feature: list[Tensor] = []
        for field, points, directions, shape, appearance in (
            (self.object_field, s.object_points, s.object_directions, latents.shape, latents.appearance),
            (self.background_field, s.world_points, s.world_directions, *latents[2:]),
        ):
            directions = directions.unsqueeze(2).expand(-1, -1, count, -1)
            raw, values = field(points.flatten(1, 2), directions.flatten(1, 2), shape, appearance)
            raw = raw.to(s.depth).unflatten(1, s.depth.shape[1:])
            density.append(self.occupied(raw, None if noise is None else noise.density[len(density)]))
            feature.append(values.unflatten(1, s.depth.shape[1:]))
        density[0] = density[0] * s.inside
        return self.as_image(composite(torch.stack(density), torch.stack(feature), s.depth))

    def occupied(self, raw: Tensor, noise: Tensor | None) -> Tensor:
        """Densities from a field's raw output: noise in training, never negative."""
        return torch.relu(raw if noise is None else raw + self.config.density_noise * noise)

    def as_image(self, rays: Tensor) -> Tensor:
        side = self.config.feature_resolution
        return rays.transpose(1, 2).unflatten(2, (side, side))


def read_out(layer: nn.Linear, summed: Tensor, weight: Tensor) -> Tensor:
    """``sum_i w_i layer(h_i)`` from ``sum_i w_i h_i`` (..., hidden) and ``sum_i w_i`` (..., 1)."""
    return F.linear(summed, layer.weight) + weight * layer.bias


def between(fraction: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * fraction
