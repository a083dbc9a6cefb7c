"""Next3D's animatable 3D GAN (Sun et al. 2023), the baseline of InvertAvatar's table 1.

Neural textures are laid on the posed mesh seen orthographically from four sides: front, left, right and above. Two
conditional synthesis networks complete the front view: one the mouth, cut out and enlarged, one the whole. The results
replace what the static tri-plane has where the mesh is seen.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import fir
from models.avatar import AvatarConfig, AvatarGenerator, AvatarOutput, SurfaceMap
from models.mapping import Mapping
from models.render.holes import holes
from models.stylegan import EqualConv2d, Noise, Synthesis, SynthesisBlock, SynthesisConfig


class Next3DConfig(AvatarConfig):
    """Sizes of Next3D; defaults are the public code's."""

    plane_axes: Literal["eg3d", "orthogonal"] = "orthogonal"  # three different planes; public code: another order
    neural_resolution: int = 64
    mouth_side: int = 64  # pixels of the cut-out mouth
    mouth_lowest: int = 4  # where the mouth network's encoder ends
    blend_lowest: int = 32  # where the blending network's encoder ends


class Views(NamedTuple):
    """A posed mesh from four sides; each map spans the side of the volume's box.

    front: columns with +x, rows with +y. left and right: seen from +x and -x, columns with +y and rows with +z, as the
    (y, z) plane is read. above: columns with +x, rows with +z. mouth: (N, 4) left, low, right and high edge of the
    mouth on the front view, as fractions of its side.
    """

    front: SurfaceMap
    left: SurfaceMap
    right: SurfaceMap
    above: SurfaceMap
    mouth: Tensor


class _Encode(nn.Module):
    def __init__(self, channels: int, inputs: int, outputs: int):
        super().__init__()
        self.read = EqualConv2d(channels, inputs, 1, bias=False, linear=True)
        self.conv0 = EqualConv2d(inputs, inputs, 3)
        self.conv1 = EqualConv2d(inputs, outputs, 3, down=True)

    def forward(self, picture: Tensor, x: Tensor | None) -> Tensor:
        seen = self.read(picture)
        return self.conv1(self.conv0(seen if x is None else seen + x))


class ConditionalSynthesis(nn.Module):
    """A U-Net of StyleGAN2 parts: a feature picture and styles to a feature picture.

    Args:
        config: the synthesis network.
        channels: of the picture read and of the one made.
        side: of the picture read.
        lowest: the resolution at which encoding ends and synthesis begins.
        label_size, mapping: of the spare mapping network of the public layout.
    """

    def __init__(self, config: AvatarConfig, side: int, lowest: int):
        super().__init__()
        backbone: SynthesisConfig = config.backbone
        w_size, channels = config.mapping.w_size, config.plane_channels
        self.lowest = lowest
        sides = [side >> n for n in range((side // lowest).bit_length())]  # side ... lowest
        self.encoders = nn.ModuleList(
            _Encode(channels, backbone.channels(s), backbone.channels(s // 2)) for s in sides[:-1]
        )
        release = config.layout == "release"
        joined = [s for s in reversed(sides) if s < side]
        self.join = nn.ModuleDict(
            {
                str(s): EqualConv2d(
                    (1 if s == lowest else 2) * backbone.channels(s), backbone.channels(s), 3, linear=True
                )
                for s in joined
            }
        )
        network = Synthesis(backbone, channels, w_size)
        live = [block for s, block in zip(backbone.sides, network.blocks) if s > lowest]
        self.blocks = nn.ModuleList(live)
        self.first_style = sum(_convolutions(b) for b in list(network.blocks)[: len(network.blocks) - len(live)])
        self.spare = nn.ModuleList()
        if release:
            top = backbone.channels(side)
            self.spare.extend(block for s, block in zip(backbone.sides, network.blocks) if s <= lowest)
            self.spare.append(EqualConv2d(2 * top, top, 3, linear=True))
            self.spare.append(Mapping(config.mapping, config.label_size))

    def forward(self, picture: Tensor, ws: Tensor, noise: Noise = "random") -> Tensor:
        """(N, channels, side, side) and (N, w_count, w_size) to (N, channels, resolution, resolution)."""
        skips: dict[int, Tensor] = {}
        x: Tensor | None = None
        for n, encoder in enumerate(self.encoders):
            picture = fir.halve(picture) if n else picture
            x = encoder(picture, x)
            skips[picture.shape[-1] // 2] = x
        assert x is not None
        image: Tensor | None = None
        start = self.first_style
        size = self.lowest
        for block in self.blocks:
            if str(size) in self.join:
                x = self.join[str(size)](x if size == self.lowest else torch.cat([x, skips[size]], dim=1))
            count = _convolutions(block)
            x, image = block(x, image, ws[:, start : start + count + 1].unbind(1), noise)
            start, size = start + count, size * 2
        assert image is not None
        return image


def _convolutions(block: nn.Module) -> int:
    assert isinstance(block, SynthesisBlock)
    return block.convolutions


class Next3DGenerator(AvatarGenerator):
    """Next3D; shares latents, static planes, decoder and rendering with :class:`models.avatar.AvatarGenerator`.

    Raises:
        ValueError: for ``plane_axes`` "eg3d", which have no plane for the sides of a head.
    """

    config: Next3DConfig

    def __init__(self, config: Next3DConfig):
        if config.plane_axes == "eg3d":
            raise ValueError("EG3D's planes have none for the sides of a head: Next3D needs plane_axes 'orthogonal'")
        super().__init__(config.model_copy(update={"layout": "release"}))
        self.config = config
        del self.face
        self.spare = self.spare[:1] if config.layout == "release" else nn.ModuleList()
        self.mouth = ConditionalSynthesis(config, config.mouth_side, config.mouth_lowest)
        self.blend = ConditionalSynthesis(config, config.plane_resolution, config.blend_lowest)

    def forward(self, z: Tensor, label: Tensor, surface: Views, **options: object) -> AvatarOutput:  # type: ignore[override]
        """Latents, cameras and posed meshes to pictures; options as in :meth:`AvatarGenerator.forward`."""
        return super().forward(z, label, surface, **options)  # type: ignore[arg-type]

    def posed_planes(self, ws: Tensor, surface: Views, noise: Noise = "random") -> Tensor:  # type: ignore[override]
        """The tri-plane (N, 3C, P, P) of a posed head."""
        texture = self.texture(ws, noise)
        size = texture.shape[-1]
        seen = [_paint(texture, view) for view in surface[:4]]
        front = seen[0]
        mouth = self.mouth(_cut(front, surface.mouth, self.config.mouth_side), ws, noise)
        front = self.blend(_paste(front, mouth, surface.mouth), ws, noise)
        alpha = [(view.alpha + holes(view.alpha)).clamp(max=1) for view in surface[:4]]
        side = torch.where(alpha[1] > 0, seen[1], seen[2])
        pictures = [front, side, seen[3]]
        covers = [alpha[0], torch.maximum(alpha[1], alpha[2]), alpha[3]]
        static = self.static_features(ws, noise).picture
        assert static is not None
        order = (0, 2, 1)  # the planes are (x, y), (x, z), (y, z)
        drawn = torch.cat([pictures[i] for i in order], dim=1)
        cover = torch.cat([covers[i].expand(-1, self.config.plane_channels, size, size) for i in order], dim=1)
        return static + cover * (drawn - static)

    def synthesise(  # type: ignore[override]
        self,
        ws: Tensor,
        label: Tensor,
        surface: Views,
        noise: Noise = "random",
        neural_resolution: int | None = None,
        jitter: bool | None = None,
        chunk: int | None = None,
    ) -> AvatarOutput:
        """Styles, cameras and posed meshes to pictures."""
        return self.show(ws, self.posed_planes(ws, surface, noise), label, neural_resolution, jitter, chunk)


def _paint(texture: Tensor, view: SurfaceMap) -> Tensor:
    return F.grid_sample(texture, view.uv, align_corners=False) * view.alpha


def _cut(picture: Tensor, box: Tensor, side: int) -> Tensor:
    """The (N, 4) boxes of pictures (N, C, H, H), each resized to ``side``."""
    left, low, right, high = (box * 2 - 1).unbind(1)
    zero = torch.zeros_like(left)
    theta = torch.stack(
        [(right - left) / 2, zero, (right + left) / 2, zero, (high - low) / 2, (high + low) / 2], dim=1
    ).view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(box), picture.shape[1], side, side], align_corners=False)
    return F.grid_sample(picture, grid, align_corners=False)


def _paste(picture: Tensor, patch: Tensor, box: Tensor) -> Tensor:
    """Put patches (N, C, h, h) into the (N, 4) boxes of pictures (N, C, H, H)."""
    left, low, right, high = (box * 2 - 1).unbind(1)
    zero = torch.zeros_like(left)
    wide, tall = (right - left) / 2, (high - low) / 2
    theta = torch.stack(
        [1 / wide, zero, -(right + left) / 2 / wide, zero, 1 / tall, -(high + low) / 2 / tall], dim=1
    ).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(picture.shape), align_corners=False)
    inside = (grid.abs() <= 1).all(dim=-1).unsqueeze(1)
    return torch.where(inside, F.grid_sample(patch, grid, padding_mode="border", align_corners=False), picture)
