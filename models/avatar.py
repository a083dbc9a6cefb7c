"""InvertAvatar's animatable 3D GAN (Zhao et al. 2024, section 3.2 and appendix A.1): a head that a mesh moves.

One style drives three synthesis networks. The *texture* network paints neural textures over the face mesh's UV chart,
which do not know how the face moves; the *static* network makes the tri-plane of everything else. The posed mesh, seen
straight from the front without perspective, says where each texel lands: textures of several resolutions are laid into
the face box of the front plane, with the static plane around them. The *face* network takes them in at every resolution
and completes what a mesh has not, the inside of the mouth; its picture replaces the face box of the front plane. Then
rays, a decoder and super-resolution, as in EG3D.

Rows of the front plane run with +y, as planes are read (:mod:`models.planes`), and columns with +x: seen as pictures,
its maps stand on their heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import camera, fir
from models.config import Config
from models.decoder import Decoder
from models.discriminators import DiscriminatorConfig
from models.mapping import Mapping, MappingConfig
from models.planes import PlaneConfig, PlaneField
from models.render.holes import holes
from models.render.volume import RenderConfig, render
from models.stylegan import Noise, Precision, Synthesis, SynthesisBlock, SynthesisConfig
from models.superresolution import SuperResolution, SuperResolutionConfig

_MARGIN = 0.001  # EG3D: colours may overshoot [0, 1] by this much
LEVELS = 3  # resolutions at which textures enter the face network: 32, 64 and 128 of 256
Layout = Literal["lean", "release"]


class FaceBox(Config):
    """Where the face lies on the front plane: its lower left corner and its side, as fractions of the volume's box."""

    x: float = -0.25  # public code: columns 64 to 192 of 256
    # Unpublished: our choice: from below anny's chins with open jaws to above raised brows, and on a whole texel at all
    # resolutions; public code: rows 57 to 185.
    y: float = -0.375
    side: float = 0.5  # public code: 128 of 256

    def window(self, box: float) -> tuple[float, float, float]:
        """(x, y, side) of the square in world units, for a volume of side ``box``."""
        return self.x * box, self.y * box, self.side * box

    def pixels(self, size: int) -> tuple[slice, slice]:
        """Rows and columns of the square on a plane of ``size`` texels a side."""
        first_row, first_column, side = (round(v * size) for v in (self.y + 0.5, self.x + 0.5, self.side))
        return slice(first_row, first_row + side), slice(first_column, first_column + side)


class AvatarConfig(Config):
    """An animatable head generator. Defaults: InvertAvatar at 512 pixels."""

    resolution: int = 512
    neural_resolution: int = 128  # section 3.2; trained at 64 first
    mapping: MappingConfig = MappingConfig()
    plane_resolution: int = 256  # EG3D; also of the textures
    plane_channels: int = 32  # EG3D
    plane_axes: Literal["eg3d", "orthogonal"] = "eg3d"  # public code
    channel_base: int = 32768  # StyleGAN2
    channel_max: int = 512
    decoder_channels: int = 64  # EG3D
    box: float = 1.0  # side of the volume, world units; the public code's meshes are scaled to a box of 2
    # Within the volume's box, wherever the fitted camera stands; the public code: 0.45 before to 0.6 behind the mean
    # distance of a batch's cameras.
    render: RenderConfig = RenderConfig(near=0.5, far=5.0, limits="box")
    face: FaceBox = FaceBox()
    # Of the open mouth, only what is above this height belongs to the skull and comes from the static plane.
    upper_mouth: float = (
        -0.19
    )  # world units; unpublished: our choice: just below the line of the lips of anny's mean head
    superresolution_channels: tuple[int, int] = (256, 128)  # EG3D
    superresolution_precision: Precision = "float16"  # EG3D
    border: fir.Border = "zeros"  # EG3D: of the picture when it is doubled
    label_size: int = camera.LABEL_SIZE
    layout: Layout = "lean"  # "release" adds the parts that the public networks carry without use, and count

    @property
    def first_resolution(self) -> int:
        """The lowest resolution at which textures are laid on the face."""
        return self.plane_resolution // 2**LEVELS

    @property
    def backbone(self) -> SynthesisConfig:
        """Of all three synthesis networks."""
        return SynthesisConfig(
            resolution=self.plane_resolution, channel_base=self.channel_base, channel_max=self.channel_max
        )

    @property
    def planes(self) -> PlaneConfig:
        """The tri-plane."""
        return PlaneConfig(kind="triplane", plane_axes=self.plane_axes, channels=self.plane_channels, box=self.box)

    @property
    def superresolution(self) -> SuperResolutionConfig:
        """The network that makes the final picture."""
        return SuperResolutionConfig(
            resolution=self.resolution,
            inputs=self.plane_channels,
            channels=self.superresolution_channels,
            precision=self.superresolution_precision,
            border=self.border,
        )

    @property
    def texture_channels(self) -> tuple[int, ...]:
        """Channels of the neural textures, from the lowest resolution: a picture, then features of each level."""
        levels = [self.backbone.channels(self.first_resolution << i) for i in range(LEVELS)]
        return self.plane_channels, *levels

    def discriminator(self, **options: object) -> DiscriminatorConfig:
        """The matching discriminator: picture, rendered picture and the contour map of the landmarks (section 3.2)."""
        base = {"channel_base": self.channel_base, "channel_max": self.channel_max, "label_size": self.label_size}
        return DiscriminatorConfig(
            **{"resolution": self.resolution, "image_channels": 7, **base, **options}  # type: ignore[arg-type]
        )


class SurfaceMap(NamedTuple):
    """A posed face mesh seen orthographically through the face box.

    uv: (N, H, W, 2) where each pixel lies on the UV chart, in [-1, 1] with v down as ``grid_sample`` has it. alpha:
    (N, 1, H, W) 1 where the mesh is, 0 elsewhere. Rows run with +y.
    """

    uv: Tensor
    alpha: Tensor


class Features(NamedTuple):
    """What a backbone made on the way: ``levels`` holds its picture at the first resolution, then the features of the
    three levels; ``picture`` its final output, or None where nobody needs it."""

    levels: tuple[Tensor, ...]
    picture: Tensor | None


class AvatarOutput(NamedTuple):
    """image: (N, 3, H, H) in [-1, 1]; raw: (N, 3, h, h) the rendered picture; depth: (N, 1, h, h) distances; feature:
    (N, C, h, h) what was rendered; planes: (N, 3C, P, P) the tri-plane it was rendered from."""

    image: Tensor
    raw: Tensor
    depth: Tensor
    feature: Tensor
    planes: Tensor


class Layer(NamedTuple):
    """What enters the face network: features (N, C, r, r), and where they replace its own, (N, 1, r, r) in [0, 1]."""

    feature: Tensor
    alpha: Tensor


def run_backbone(
    network: Synthesis,
    ws: Tensor,
    first: int,
    noise: Noise = "random",
    layers: tuple[Layer, ...] = (),
    transforms: dict[int, Tensor] | None = None,
    until: int | None = None,
) -> Features:
    """Run a synthesis network, keeping the features of its levels and letting layers in.

    Args:
        ws: (N, at least w_count, w_size).
        first: the resolution of the first level.
        layers: the picture at ``first`` and the features of each level are replaced by these where their alpha is 1.
        transforms: resolution to (N, 2, C / 2, r, r) scale and shift for half of its channels.
        until: stop after this resolution; the final picture is then None.
    """
    x: Tensor | None = None
    image: Tensor | None = None
    kept: list[Tensor] = []
    start, size = 0, 4
    for block in network.blocks:
        assert isinstance(block, SynthesisBlock)
        styles = ws[:, start : start + block.convolutions + 1].unbind(1)
        x, image = block(x, image, styles, noise, transform=(transforms or {}).get(size))
        start += block.convolutions
        if size >= first and len(kept) <= LEVELS:
            if not kept:
                image = _lay(image, layers[0]) if layers else image
                kept.append(image)
            x = _lay(x, layers[len(kept)]) if layers else x
            kept.append(x)
        if size == until:
            return Features(tuple(kept), None)
        size *= 2
    return Features(tuple(kept), image)


def _lay(under: Tensor, layer: Layer) -> Tensor:
    return under + layer.alpha * (layer.feature - under)


def shrink(surface: SurfaceMap, side: int) -> SurfaceMap:
    """A surface map of ``side`` pixels: the mean chart position and the coverage of each cell.

    Looking textures up at their own resolution costs a cell's share of looking them up at the map's and shrinking the
    result (512 channels at 256 pixels would be 128 MiB a picture), and differs where a cell straddles a chart's seam.

    Raises:
        ValueError: if the map's side is no multiple of ``side``.
    """
    cell, rest = divmod(surface.alpha.shape[-1], side)
    if rest or not cell:
        raise ValueError(f"a surface map of {surface.alpha.shape[-1]} pixels cannot be shrunk to {side}")
    alpha = F.avg_pool2d(surface.alpha, cell)
    uv = F.avg_pool2d(surface.uv.permute(0, 3, 1, 2) * surface.alpha, cell) / alpha.clamp_min(1e-6)
    return SurfaceMap(uv.permute(0, 2, 3, 1), alpha)


class AvatarGenerator(nn.Module):
    """The generator, see the module's text. ``spare`` holds what the public layout carries without use."""

    def __init__(self, config: AvatarConfig):
        super().__init__()
        self.config = config
        w_size, channels = config.mapping.w_size, config.plane_channels
        self.texture = Synthesis(config.backbone, channels, w_size)
        self.static = Synthesis(config.backbone, 3 * channels, w_size)
        self.face = Synthesis(config.backbone, channels, w_size)
        self.w_count = self.static.w_count
        self.mapping = Mapping(config.mapping, config.label_size, self.w_count)
        self.decoder = Decoder(channels, config.decoder_channels, channels, _MARGIN)
        self.superresolution = SuperResolution(config.superresolution, w_size)
        spare = 2 if config.layout == "release" else 0
        self.spare = nn.ModuleList(Mapping(config.mapping, config.label_size) for _ in range(spare))
        if config.layout == "lean":  # the texture network's last block paints what nobody looks at
            del self.texture.blocks[-1]
            self.texture.w_count -= 2
            for side, block in zip(config.backbone.sides, self.texture.blocks):
                if side > config.first_resolution:
                    assert isinstance(block, SynthesisBlock)
                    block.to_image.requires_grad_(False)  # the picture is looked at once, at the first resolution

    # --- the canonical features, which inversion refines ---

    def texture_features(self, ws: Tensor, noise: Noise = "random") -> tuple[Tensor, ...]:
        """Styles to neural textures over the UV chart: (N, ``config.texture_channels[i]``, r, r)."""
        last = self.config.plane_resolution // 2
        return run_backbone(self.texture, ws, self.config.first_resolution, noise, until=last).levels

    def static_features(
        self, ws: Tensor, noise: Noise = "random", transforms: dict[int, Tensor] | None = None
    ) -> Features:
        """Styles to the static tri-plane (N, 3C, P, P) and the features on its way."""
        return run_backbone(self.static, ws, self.config.first_resolution, noise, transforms=transforms)

    # --- posing ---

    def layers(self, textures: tuple[Tensor, ...], static: Features, surface: SurfaceMap) -> tuple[Layer, ...]:
        """Lay the textures where the mesh is, the static features around them, at the resolution of each level."""
        config = self.config
        inside = holes(surface.alpha)
        _, low, height = config.face.window(config.box)
        inside[:, :, : round((config.upper_mouth - low) / height * inside.shape[-2])] = 0
        covered = (surface.alpha + inside).clamp(max=1)
        out = []
        for texture, around in zip(textures, static.levels):
            side = texture.shape[-1]
            rows, columns = config.face.pixels(around.shape[-1])
            around = fir.resize(around[:, : texture.shape[1], rows, columns], side)
            uv, alpha = shrink(surface, side)
            painted = F.grid_sample(texture, uv, align_corners=False)
            out.append(Layer(_lay(around, Layer(painted, alpha)), fir.resize(covered, side)))
        return tuple(out)

    def planes(
        self,
        ws: Tensor,
        surface: SurfaceMap,
        textures: tuple[Tensor, ...],
        static: Features,
        noise: Noise = "random",
    ) -> Tensor:
        """The tri-plane (N, 3C, P, P) of a posed head: the static one with the face in its front plane."""
        config = self.config
        assert static.picture is not None
        layers = self.layers(textures, static, surface)
        face = run_backbone(self.face, ws, config.first_resolution, noise, layers).picture
        assert face is not None
        rows, columns = config.face.pixels(config.plane_resolution)
        side = rows.stop - rows.start
        alpha = fir.resize((surface.alpha + holes(surface.alpha)).clamp(max=1), side)
        front, rest = static.picture.split([config.plane_channels, 2 * config.plane_channels], dim=1)
        size = config.plane_resolution
        margin = (columns.start, size - columns.stop, rows.start, size - rows.stop)
        front = _lay(front, Layer(F.pad(fir.resize(face, side), margin), F.pad(alpha, margin)))
        return torch.cat([front, rest], dim=1)

    def posed_planes(self, ws: Tensor, surface: SurfaceMap, noise: Noise = "random") -> Tensor:
        """The tri-plane of the generator's own features."""
        return self.planes(ws, surface, self.texture_features(ws, noise), self.static_features(ws, noise), noise)

    def field(self, planes: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """World points (N, P, 3) to features (N, P, C) and raw densities (N, P) in tri-planes (N, 3C, P, P)."""
        field = PlaneField(planes, self.config.planes)
        return lambda points: self.decoder(field.query(points))

    # --- pictures ---

    def forward(
        self,
        z: Tensor,
        label: Tensor,
        surface: SurfaceMap,
        conditioning: Tensor | None = None,
        truncation: float = 1.0,
        truncation_cutoff: int | None = None,
        update_average: bool = False,
        **options: object,
    ) -> AvatarOutput:
        """Latents (N, z_size), cameras (N, 25) and posed meshes to pictures; options as in :meth:`synthesise`."""
        told = label if conditioning is None else conditioning
        ws = self.mapping(z, told, truncation, truncation_cutoff, update_average)
        return self.synthesise(ws, label, surface, **options)  # type: ignore[arg-type]

    def synthesise(
        self,
        ws: Tensor,
        label: Tensor,
        surface: SurfaceMap,
        textures: tuple[Tensor, ...] | None = None,
        static: Features | None = None,
        noise: Noise = "random",
        neural_resolution: int | None = None,
        jitter: bool | None = None,
        chunk: int | None = None,
        finish: bool = True,
    ) -> AvatarOutput:
        """Styles to pictures.

        Args:
            ws: (N, w_count, w_size).
            label: (N, 25) cameras.
            surface: the posed meshes.
            textures, static: canonical features that an encoder has refined; the generator's own if None.
            noise: of the synthesis networks.
            neural_resolution: rays per side; the configuration's if None.
            jitter: random ray samples; while training if None.
            chunk: rays at a time, see :func:`models.render.volume.render`.
            finish: False leaves super-resolution out: ``image`` is then ``raw``.
        """
        textures = self.texture_features(ws, noise) if textures is None else textures
        static = self.static_features(ws, noise) if static is None else static
        planes = self.planes(ws, surface, textures, static, noise)
        return self.show(ws, planes, label, neural_resolution, jitter, chunk, finish)

    def show(
        self,
        ws: Tensor,
        planes: Tensor,
        label: Tensor,
        neural_resolution: int | None = None,
        jitter: bool | None = None,
        chunk: int | None = None,
        finish: bool = True,
    ) -> AvatarOutput:
        """Render tri-planes (N, 3C, P, P) from cameras (N, 25); options as in :meth:`synthesise`."""
        side = neural_resolution or self.config.neural_resolution
        origin, direction = camera.rays(label, side)
        seen = render(
            self.field(planes),
            origin,
            direction,
            self.config.render,
            box=self.config.box,
            jitter=self.training if jitter is None else jitter,
            chunk=chunk,
        )
        feature = seen.feature.transpose(1, 2).unflatten(2, (side, side)).contiguous() * 2 - 1
        raw = feature[:, :3]
        image = self.superresolution(raw, feature, ws[:, -1]) if finish else raw
        return AvatarOutput(image, raw, seen.depth.view(-1, 1, side, side), feature, planes)
