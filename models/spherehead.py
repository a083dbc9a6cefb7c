"""SphereHead (section 3) and the systems it grew from and is compared with, as one generator.

| variant | planes | background, mask, camera offset | parsing |
|---|---|---|---|
| ``eg3d`` | tri-plane | no | no |
| ``panohead`` | tri-grid of 3 slices | yes | no |
| ``single_sphere`` | sphere A | yes | no |
| ``dual_sphere`` | spheres A and B | yes | no |
| ``spherehead`` | spheres A and B | yes | yes |

A latent and a camera become styles; styles become feature planes; a small decoder turns looked-up features into colour
features and density; rays through a small picture composite them, over a background of its own; super-resolution makes
the final picture. Parsing can be added to any variant with a background.
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
from models.planes import Kind, PlaneConfig, PlaneField, Sphere
from models.render.volume import RenderConfig, Rendered, render
from models.stylegan import EqualLinear, Noise, Precision, Synthesis, SynthesisConfig, ToImage
from models.superresolution import SuperResolution, SuperResolutionConfig

Variant = Literal["eg3d", "panohead", "single_sphere", "dual_sphere", "spherehead"]

_KIND: dict[Variant, Kind] = {
    "eg3d": "triplane",
    "panohead": "trigrid",
    "single_sphere": "single_sphere",
    "dual_sphere": "dual_sphere",
    "spherehead": "dual_sphere",
}
# Opacity and colour may overshoot [0, 1] by this much, so that a sigmoid need not saturate (mip-NeRF, EG3D).
_MARGIN = 0.001


class HeadConfig(Config):
    """A head generator. Defaults: SphereHead at 512 pixels."""

    variant: Variant = "spherehead"
    resolution: int = 512
    neural_resolution: int = 64  # EG3D: rays per side at the start; 128 at the end
    mapping: MappingConfig = MappingConfig()
    plane_resolution: int = 256  # EG3D; SphereHead appendix A leaves its number unreadable, its code inherits 256
    plane_axes: Literal["eg3d", "orthogonal"] = "orthogonal"
    plane_channels: int = 32  # EG3D
    grid_depth: int = 3  # PanoHead's triplane_depth
    channel_base: int = 32768  # StyleGAN2
    channel_max: int = 512
    backbone_channels: int = 512  # SphereHead's code: channels of the map that the sphere heads read
    head_channels: int = 256  # SphereHead's code: hidden channels of a sphere head
    decoder_channels: int = 64  # EG3D
    box: float = 1.0  # EG3D's box_warp
    render: RenderConfig = RenderConfig()
    parsing: bool | None = None  # None: the variant decides
    parsing_classes: int = 20  # SphereHead's code; its discriminator is counted with 19 and 20
    camera_offset: bool = True  # PanoHead: camera self-adaptation; never in eg3d
    superresolution_channels: tuple[int, int] = (256, 128)  # EG3D: (128, 64) for 256 pixels and less
    superresolution_precision: Precision = "float16"  # EG3D
    border: fir.Border = "zeros"  # EG3D, PanoHead: of pictures and backgrounds when they are doubled
    backbone_precision: Precision = "float32"  # EG3D's g_num_fp16_res = 0
    backbone_half_blocks: int = 0
    label_size: int = camera.LABEL_SIZE

    @property
    def planes(self) -> PlaneConfig:
        """The plane representation of the variant."""
        depth = self.grid_depth if self.variant == "panohead" else 1
        return PlaneConfig(
            kind=_KIND[self.variant],
            plane_axes=self.plane_axes,
            channels=self.plane_channels,
            depth=depth,
            box=self.box,
        )

    @property
    def spherical(self) -> bool:
        """Whether planes are spheres, which have heads on a shared backbone."""
        return self.planes.kind in ("single_sphere", "dual_sphere")

    @property
    def foreground(self) -> bool:
        """Whether head and background are apart (PanoHead): background network, mask, modulated raw picture."""
        return self.variant != "eg3d"

    @property
    def has_parsing(self) -> bool:
        """Whether the generator also renders a parsing."""
        return self.variant == "spherehead" if self.parsing is None else self.parsing

    @property
    def backbone(self) -> SynthesisConfig:
        """The network that makes the planes."""
        return SynthesisConfig(
            resolution=self.plane_resolution,
            channel_base=self.channel_base,
            channel_max=self.channel_max,
            precision=self.backbone_precision,
            half_blocks=self.backbone_half_blocks,
        )

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
    def background(self) -> SynthesisConfig:
        """The network that makes the background: PanoHead halves the channel base."""
        return SynthesisConfig(
            resolution=self.superresolution.input_resolution,
            channel_base=self.channel_base // 2,
            channel_max=self.channel_max,
            border=self.border,
        )

    def discriminator(self, **options: object) -> DiscriminatorConfig:
        """The matching discriminator: picture, raw picture, and mask and parsing where the generator has them."""
        channels = 6 + self.foreground + self.has_parsing * self.parsing_classes
        base = {"channel_base": self.channel_base, "channel_max": self.channel_max, "label_size": self.label_size}
        return DiscriminatorConfig(
            **{"resolution": self.resolution, "image_channels": channels, **base, **options}  # type: ignore[arg-type]
        )


class HeadOutput(NamedTuple):
    """What a head generator shows.

    image: (N, 3, H, H) in [-1, 1]. raw: (N, 3, h, h) the rendered picture. depth: (N, 1, h, h) distances from the
    camera. mask: (N, 1, h, h) in about [0, 1], or None. parsing: (N, classes, h, h) probabilities, or None. offset:
    (N, 3) the learned shift of the camera, world units, or None. feature: (N, C, h, h) what was rendered.
    """

    image: Tensor
    raw: Tensor
    depth: Tensor
    mask: Tensor | None
    parsing: Tensor | None
    offset: Tensor | None
    feature: Tensor


class SphereHeads(nn.Module):
    """One head a sphere: 1x1 convolutions backbone -> hidden -> planes, without bias or activation between.

    Two linear maps in a row are one: :meth:`matrix` is what the backbone applies to its own output weights.
    """

    def __init__(self, spheres: int, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.first = nn.ParameterList(nn.Parameter(torch.randn(hidden, inputs)) for _ in range(spheres))
        self.second = nn.ParameterList(nn.Parameter(torch.randn(outputs, hidden)) for _ in range(spheres))
        self.gain = (inputs * hidden) ** -0.5

    def matrix(self) -> Tensor:
        """(spheres * outputs, inputs)."""
        return torch.cat([second @ first for first, second in zip(self.first, self.second)]) * self.gain

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, H) to (N, spheres * outputs, H, H), one convolution after the other."""
        hidden = [F.conv2d(x, first[:, :, None, None]) for first in self.first]
        planes = [F.conv2d(h, second[:, :, None, None]) for h, second in zip(hidden, self.second)]
        return torch.cat(planes, dim=1) * self.gain


class HeadGenerator(nn.Module):
    """The generator of all variants; see the module's text.

    Raises:
        ValueError: if parsing is asked of a variant without foreground.
    """

    def __init__(self, config: HeadConfig):
        super().__init__()
        if config.has_parsing and not config.foreground:
            raise ValueError(f"variant {config.variant!r} renders no foreground of its own, so it has no parsing")
        self.config = config
        planes, w_size = config.planes, config.mapping.w_size
        stacked = planes.planes * planes.channels
        channels = config.plane_channels
        self.backbone = Synthesis(config.backbone, config.backbone_channels if config.spherical else stacked, w_size)
        spheres = planes.planes // 3
        self.heads = (
            SphereHeads(spheres, config.backbone_channels, config.head_channels, 3 * channels)
            if config.spherical
            else None
        )
        self.decoder = Decoder(channels, config.decoder_channels, channels, None if config.foreground else _MARGIN)
        self.superresolution = SuperResolution(config.superresolution, w_size)
        self.background = Synthesis(config.background, channels, w_size) if config.foreground else None
        self.w_count = max(self.backbone.w_count, self.background.w_count if self.background else 0)
        self.mapping = Mapping(config.mapping, config.label_size, self.w_count)
        self.to_raw = ToImage(channels, 3, w_size) if config.foreground else None
        self.to_parsing = ToImage(channels, config.parsing_classes, w_size) if config.has_parsing else None
        # PanoHead's camera self-adaptation: a mapping network with three outputs.
        offset = config.mapping.model_copy(update={"w_size": 3, "layers": 2, "lr_multiplier": 1.0})
        self.camera = (
            Mapping(offset, config.label_size, linear=True, keep_average=False)
            if config.foreground and config.camera_offset
            else None
        )
        if self.camera is not None:  # unpublished: our choice: training starts from the cameras of the labels
            last = self.camera.layers[-1]
            assert isinstance(last, EqualLinear)
            nn.init.zeros_(last.weight)

    def adapt_camera(self, z: Tensor, label: Tensor) -> tuple[Tensor, Tensor | None]:
        """Shift the cameras of (N, 25) labels by what the network learned; also return the (N, 3) shift, or None."""
        if self.camera is None:
            return label, None
        shift = self.camera(z, label)
        shifted = label.clone()
        shifted[:, 3:12:4] = label[:, 3:12:4] + shift
        return shifted, shift

    def planes(self, ws: Tensor, noise: Noise = "random", fast: bool = True) -> Tensor:
        """(N, w_count, w_size) styles to feature planes (N, planes * channels, H, H).

        The fast form maps the backbone's output weights by the sphere heads, the plain one the finished picture.
        """
        if self.heads is None:
            return self.backbone(ws, noise)
        return self.backbone(ws, noise, self.heads.matrix()) if fast else self.heads(self.backbone(ws, noise))

    def field(self, planes: Tensor, sphere: Sphere = "fused", fast: bool = True) -> Callable:
        """The radiance field of feature planes: world points (N, P, 3) to features (N, P, C) and densities (N, P)."""
        source = PlaneField(planes, self.config.planes, fast)
        return lambda points: self.decoder(source.query(points, sphere), fast)

    def forward(
        self,
        z: Tensor,
        label: Tensor,
        conditioning: Tensor | None = None,
        truncation: float = 1.0,
        truncation_cutoff: int | None = None,
        update_average: bool = False,
        background: Tensor | None = None,
        **options: object,
    ) -> HeadOutput:
        """Latents to pictures.

        Args:
            z: (N, z_size) latents, N(0, 1).
            label: (N, 25) cameras to render from.
            conditioning: (N, 25) cameras the identity is told; ``label`` if None. In training some are swapped, so that
                identity does not depend on the camera.
            truncation, truncation_cutoff, update_average: see :class:`models.mapping.Mapping`.
            background: (N, z_size) other latents for the background.
            options: see :meth:`synthesise`.
        """
        told = label if conditioning is None else conditioning
        ws = self.mapping(z, told, truncation, truncation_cutoff, update_average)
        if background is not None:
            options["ws_background"] = self.mapping(background, told, truncation, truncation_cutoff)
        label, shift = self.adapt_camera(z, label)
        return self.synthesise(ws, label, **options)._replace(offset=shift)  # type: ignore[arg-type]

    def synthesise(
        self,
        ws: Tensor,
        label: Tensor,
        sphere: Sphere = "fused",
        noise: Noise = "random",
        neural_resolution: int | None = None,
        jitter: bool | None = None,
        density_noise: float = 0.0,
        ws_background: Tensor | None = None,
        planes: Tensor | None = None,
        chunk: int | None = None,
        fast: bool = True,
        precision: Precision | None = None,
    ) -> HeadOutput:
        """Styles to pictures.

        Args:
            ws: (N, w_count, w_size) styles.
            label: (N, 25) cameras, used as they are.
            sphere: which sphere of a dual sphere is rendered; SphereHead trains either alone as well (section 5.1).
            noise: of the backbone.
            neural_resolution: rays per side; the configuration's if None.
            jitter: random ray samples; while training if None.
            density_noise: standard deviation of noise on densities.
            ws_background: other styles for the background.
            planes: feature planes of :meth:`planes`, to render one identity many times.
            chunk: rays rendered at a time, see :func:`models.render.volume.render`.
            fast: the fast forms throughout, or the plain ones.
            precision: of super-resolution; the configuration's if None.
        """
        if planes is None:
            planes = self.planes(ws, noise, fast)
        side = neural_resolution or self.config.neural_resolution
        origin, direction = camera.rays(label, side)
        seen = render(
            self.field(planes, sphere, fast),
            origin,
            direction,
            self.config.render,
            box=self.config.box,
            jitter=self.training if jitter is None else jitter,
            density_noise=density_noise,
            chunk=chunk,
            fast=fast,
        )
        behind = (
            None if self.background is None else self.background(ws if ws_background is None else ws_background, noise)
        )
        return self.finish(seen, ws[:, -1], side, behind, precision)

    def finish(
        self, seen: Rendered, last: Tensor, side: int, behind: Tensor | None, precision: Precision | None = None
    ) -> HeadOutput:
        """From what rays saw to pictures.

        Args:
            seen: of side * side rays a picture.
            last: (N, w_size) the style of the last layers.
            side: rays per side.
            behind: (N, C, b, b) the background, or None in a variant without.
            precision: of super-resolution; the configuration's if None.
        """
        feature = seen.feature.transpose(1, 2).unflatten(2, (side, side)).contiguous()
        opacity = seen.opacity.view(-1, 1, side, side)
        mask = parsing = None
        if behind is None or self.to_raw is None:
            feature = feature * 2 - 1
            raw = feature[:, :3]
        else:
            feature = feature + (1 - opacity) * fir.resize(behind, side)
            raw = self.to_raw(feature, last)
            mask = opacity * (1 + 2 * _MARGIN) - _MARGIN
            if self.to_parsing is not None:
                parsing = self.to_parsing(feature, last).softmax(dim=1)
        image = self.superresolution(raw, feature, last, precision)
        depth = seen.depth.view(-1, 1, side, side)
        return HeadOutput(image, raw, depth, mask, parsing, None, feature)
