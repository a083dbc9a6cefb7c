"""InvertAvatar's encoders (section 3.3, 3.4, appendix A.3): from pictures to a style and to canonical features.

* :class:`LatentEncoder` (E_latent): a picture to W+ styles, e4e's way: the first style, and what the others add to it.
* :class:`TextureEncoder` (E_tex): what is seen of the face, unwrapped to the UV chart, to offsets of neural textures.
* :class:`TriplaneEncoder` (E_tri): the picture to scales and shifts of half of the static network's channels.

The latter two are U-Nets over the same body. With a fusion, their decoders merge the frames of a clip at every level
(E_tex_rec, E_tri_rec), and remember: each further frame refines the result.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import Config
from models.fusion import Kind, Memory, Update, make_fusion
from models.irse import Body, BodyConfig, BodyFeatures
from models.stylegan import EqualLinear, SynthesisConfig

COARSE, MIDDLE = 3, 7  # e4e: styles before these read the map at 1/16, at 1/8, and the rest at 1/4


# --- the latent -------------------------------------------------------------------------------------------------------


class LatentConfig(Config):
    """E_latent."""

    body: BodyConfig = BodyConfig()
    resolution: int = 256  # public code; pictures of other sizes are resized by the caller
    styles: int = 14  # of a synthesis network to 256 pixels
    w_size: int = 512


class _StyleHead(nn.Module):
    """A feature map to one style: halve until one pixel is left."""

    def __init__(self, width: int, side: int, w_size: int):
        super().__init__()
        layers: list[nn.Module] = []
        for n in range(side.bit_length() - 1):
            layers += [nn.Conv2d(width if n == 0 else w_size, w_size, 3, 2, padding=1), nn.LeakyReLU(0.01)]
        self.halve = nn.Sequential(*layers)
        self.out = EqualLinear(w_size, w_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.halve(x).flatten(1))


class LatentEncoder(nn.Module):
    """E_latent, see the module's text."""

    def __init__(self, config: LatentConfig):
        super().__init__()
        side = config.resolution // 16
        if side < 2 or side & (side - 1):
            raise ValueError(f"the resolution of a latent encoder is 16 times a power of two, not {config.resolution}")
        self.config = config
        self.body = Body(config.body)
        _, _, quarter, eighth, last = config.body.widths
        self.from_eighth, self.from_quarter = nn.Conv2d(eighth, last, 1), nn.Conv2d(quarter, last, 1)
        sides = [side] * COARSE + [2 * side] * (MIDDLE - COARSE) + [4 * side] * config.styles
        self.heads = nn.ModuleList(_StyleHead(last, s, config.w_size) for s in sides[: config.styles])

    def forward(self, image: Tensor, styles: int | None = None) -> Tensor:
        """Pictures (N, 3, resolution, resolution) in [-1, 1] to styles (N, styles, w_size), about the mean style.

        Args:
            styles: how many styles differ from the first; training enables them one after the other (e4e). All if None.
        """
        seen = self.body(image)
        middle = _grow(seen.sixteenth, self.from_eighth(seen.eighth))
        fine = _grow(middle, self.from_quarter(seen.quarter))
        count = self.config.styles
        enabled = count if styles is None else min(styles, count)
        first = self.heads[0](seen.sixteenth)
        out = [first]
        for n in range(1, count):
            source = seen.sixteenth if n < COARSE else middle if n < MIDDLE else fine
            out.append(first + self.heads[n](source) if n < enabled else first)
        return torch.stack(out, dim=1)


def _grow(small: Tensor, large: Tensor) -> Tensor:
    return large + F.interpolate(small, size=large.shape[-2:], mode="bilinear", align_corners=True)


class LatentDiscriminator(nn.Module):
    """Styles of the mapping network against encoded ones (e4e): four layers."""

    def __init__(self, w_size: int = 512, layers: int = 4):
        super().__init__()
        self.layers = nn.ModuleList(
            [*(EqualLinear(w_size, w_size, linear=False) for _ in range(layers - 1)), EqualLinear(w_size, 1)]
        )

    def forward(self, w: Tensor) -> Tensor:
        """(..., w_size) to logits (...)."""
        for layer in self.layers:
            w = layer(w)
        return w.squeeze(-1)


# --- the features -----------------------------------------------------------------------------------------------------


class UNetConfig(Config):
    """The U-Net of E_tex and E_tri."""

    body: BodyConfig = BodyConfig()
    decoder: tuple[int, int, int, int] = (512, 384, 256, 96)  # public code: channels at 1/16, 1/8, 1/4 and 1/2
    fusion: Kind | None = None  # None: single pictures
    update: Update = "release"
    window: int = 3  # frames a window of the baselines that have one (appendix B.1)


class _Up(nn.Module):
    """Enlarge by pixel shuffle, join what the body saw at that size, convolve twice, and merge the frames."""

    def __init__(self, below: int, beside: int, outputs: int, enlarge: bool, config: UNetConfig):
        super().__init__()
        self.enlarge = enlarge
        joined = (below // 4 if enlarge else below) + beside
        self.convolve = nn.Sequential(
            nn.BatchNorm2d(joined),
            nn.Conv2d(joined, outputs, 3, padding=1),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.PReLU(outputs),
        )
        self.fusion = make_fusion(config.fusion, outputs, config.update, config.window) if config.fusion else None

    def forward(self, x: Tensor, beside: Tensor, frames: int, memory: Memory | None) -> tuple[Tensor, Memory | None]:
        """(N, below, h, h), or a frame each (N T, ...), and (N T, beside, ...) to (N, outputs, ...) and the memory."""
        x = F.pixel_shuffle(x, 2) if self.enlarge else x
        if x.shape[0] != beside.shape[0]:
            x = x.repeat_interleave(frames, dim=0)
        x = self.convolve(torch.cat([beside, x], dim=1))
        if self.fusion is None:
            return x, None
        return self.fusion(x.unflatten(0, (-1, frames)), memory)


Memories = tuple[Memory | None, ...]


class UNet(nn.Module):
    """Pictures or clips to features at 1/16, 1/8, 1/4 and 1/2 of their side."""

    def __init__(self, inputs: int, config: UNetConfig):
        super().__init__()
        self.config = config
        self.body = Body(config.body, inputs)
        _, half, quarter, eighth, last = config.body.widths
        a, b, c, d = config.decoder
        if any(width % 4 for width in (a, b, c, d)):
            raise ValueError(f"decoder channels are multiples of 4 (pixel shuffle), not {config.decoder}")
        self.ups = nn.ModuleList(
            [
                _Up(last, last, a, False, config),
                _Up(a, eighth, b, True, config),
                _Up(b, quarter, c, True, config),
                _Up(c, half, d, True, config),
            ]
        )

    def encode(self, x: Tensor) -> BodyFeatures:
        """The body alone, frame by frame: (N T, inputs, S, S). Recurrent decoders are trained on top of a fixed one."""
        return self.body(x)

    def forward(self, x: Tensor, memory: Memories | None = None) -> tuple[tuple[Tensor, ...], Memories]:
        """Decode.

        Args:
            x: (N, inputs, S, S) pictures, or (N, T, inputs, S, S) clips where there is a fusion.
            memory: what :meth:`forward` returned for earlier frames.

        Returns:
            Four features (N, C, h, h), and the memory.

        Raises:
            ValueError: if several frames come without a fusion.
        """
        frames = x.shape[1] if x.ndim == 5 else 1
        return self.decode(self.encode(x.flatten(0, 1) if x.ndim == 5 else x), frames, memory)

    def decode(
        self, seen: BodyFeatures, frames: int = 1, memory: Memories | None = None
    ) -> tuple[tuple[Tensor, ...], Memories]:
        """The rest of :meth:`forward`, of what :meth:`encode` saw of N times ``frames`` pictures."""
        if frames > 1 and self.config.fusion is None:
            raise ValueError("an encoder without fusion takes one picture at a time, not a clip")
        now, out, kept = seen.sixteenth, [], []
        sides = (seen.first_sixteenth, seen.eighth, seen.quarter, seen.half)
        for n, (up, beside) in enumerate(zip(self.ups, sides)):
            now, remembered = up(now, beside, frames, None if memory is None else memory[n])
            out.append(now)
            kept.append(remembered)
        return tuple(out), tuple(kept)


class TextureEncoder(nn.Module):
    """E_tex: offsets of the neural textures, none at first, so that training starts from the prior (our choice).

    Args:
        channels: of the generator's textures, :attr:`models.avatar.AvatarConfig.texture_channels`.
        config: the U-Net.
        inputs: 7: unwrapped picture 3, unwrapped residual 3, visibility 1; 6 for the baseline that reads the posed
            picture and residual instead of unwrapping them.
    """

    def __init__(self, channels: tuple[int, ...], config: UNetConfig, inputs: int = 7):
        super().__init__()
        self.unet = UNet(inputs, config)
        widths = (config.decoder[1], *config.decoder[1:])
        self.out = nn.ModuleList(nn.Conv2d(width, c, 1) for width, c in zip(widths, channels, strict=True))
        for out in self.out:
            _silence(out)

    def forward(self, x: Tensor, memory: Memories | None = None) -> tuple[tuple[Tensor, ...], Memories]:
        """(N, [T,] inputs, S, S) to offsets of each texture (N, C, r, r) and the memory."""
        features, kept = self.unet(x, memory)
        return self.changes(features), kept

    def changes(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The U-Net's features to offsets of each texture."""
        _, eighth, quarter, half = features
        return tuple(out(source) for out, source in zip(self.out, (eighth, eighth, quarter, half)))


class PlaneChanges(NamedTuple):
    """What an encoder changes of the static network.

    transforms: resolution to (N, 2, C / 2, r, r), see :func:`models.avatar.run_backbone`. offset: (N, 3C, P, P) added
    to the finished tri-plane, of the baseline without transforms.
    """

    transforms: dict[int, Tensor]
    offset: Tensor | None


class TriplaneEncoder(nn.Module):
    """E_tri: scales and shifts of half of the static network's channels at S/16 ... S; or plain offsets (baseline).

    Args:
        backbone: the static network's sizes; its resolution is the side S of the pictures read.
        config: the U-Net.
        offsets: channels 3C of the tri-plane for the baseline that adds offsets to it; 0 for transforms.
        inputs: 6: picture and residual.
    """

    def __init__(self, backbone: SynthesisConfig, config: UNetConfig, offsets: int = 0, inputs: int = 6):
        super().__init__()
        self.unet = UNet(inputs, config)
        width = config.decoder[-1]
        self.finish = nn.Sequential(
            nn.PixelShuffle(2),
            nn.Conv2d(width // 4, width, 3, padding=1),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, padding=1),
            nn.PReLU(width),
        )
        self.resolution = backbone.resolution
        self.offset = nn.Conv2d(width, offsets, 3, padding=1) if offsets else None
        self.scale, self.shift = nn.ModuleDict(), nn.ModuleDict()
        if self.offset is not None:
            _silence(self.offset)
            return
        for n, inner in enumerate((*config.decoder, width)):
            side = backbone.resolution // 16 << n
            outputs = backbone.channels(side) // 2
            self.scale[str(side)], self.shift[str(side)] = _condition(inner, outputs, 1.0), _condition(inner, outputs)

    def forward(self, x: Tensor, memory: Memories | None = None) -> tuple[PlaneChanges, Memories]:
        """(N, [T,] inputs, S, S) to the changes of the static network and the memory."""
        if x.shape[-1] != self.resolution:
            raise ValueError(f"this encoder reads pictures of {self.resolution} pixels, not {x.shape[-1]}")
        features, kept = self.unet(x, memory)
        return self.changes(features), kept

    def changes(self, features: tuple[Tensor, ...]) -> PlaneChanges:
        """The U-Net's features to the changes of the static network."""
        features = (*features, self.finish(features[-1]))
        if self.offset is not None:
            return PlaneChanges({}, self.offset(features[-1]))
        transforms = {
            int(side): torch.stack([self.scale[side](feature), self.shift[side](feature)], dim=1)
            for side, feature in zip(self.scale, features)
        }
        return PlaneChanges(transforms, None)


def _condition(inner: int, outputs: int, start: float = 0.0) -> nn.Sequential:
    """Two convolutions that begin as a constant: 1 for scales and 0 for shifts, so that training starts from the prior.

    Unpublished: our choice.
    """
    last = nn.Conv2d(inner, outputs, 3, padding=1)
    _silence(last, start)
    return nn.Sequential(nn.Conv2d(inner, inner, 3, padding=1), nn.LeakyReLU(0.2), last)


def _silence(layer: nn.Module, start: float = 0.0) -> None:
    """Let a convolution begin as a constant."""
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, start)
