"""The StyleGAN2 parts that every generator here shares: modulated convolutions and the skip synthesis.

Source: Karras et al. 2020 (StyleGAN2) with the settings of EG3D (Chan et al. 2022). Weights are drawn from N(0, 1)
and scaled when used, so that Adam's step is the same for all layers; ``lr_multiplier`` scales the step of a layer.

The modulated convolution has two forms that compute the same numbers. *Apart*: scale the input, convolve, scale the
output; one dense convolution for the batch, used in training. *Fused*: scale the weights once; used for a single
picture in inference, where it saves two passes over the feature map. Inference also keeps maps channels last, which
processors convolve faster, and passes over large maps in place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import fir
from models.config import Config

Precision = Literal["float32", "float16", "bfloat16", "half"]
Noise = Literal["random", "const", "none"]
LRELU_SLOPE = 0.2  # StyleGAN2
LRELU_GAIN = math.sqrt(2)  # keeps the second moment through a leaky ReLU


class SynthesisConfig(Config):
    """A skip synthesis network from 4x4 to ``resolution``."""

    resolution: int = 256  # EG3D's planes
    channel_base: int = 32768  # StyleGAN2: channels(r) = min(base / r, max)
    channel_max: int = 512
    precision: Precision = "float32"  # of the last `half_blocks`; EG3D keeps its backbone in float32
    half_blocks: int = 0
    clamp: float = 256.0  # EG3D's conv_clamp, in effect in half precision only
    border: fir.Border = "zeros"  # StyleGAN2: of the skip pictures when they are doubled

    @property
    def sides(self) -> list[int]:
        """Resolutions of the blocks, from 4."""
        return [1 << n for n in range(2, self.resolution.bit_length())]

    def channels(self, resolution: int) -> int:
        """Feature channels of the block that works at ``resolution``."""
        return max(1, min(self.channel_base // resolution, self.channel_max))


def working_dtype(precision: Precision, weight: Tensor) -> torch.dtype:
    """The dtype a block with this weight computes in; "float32" means that of its weights.

    float16 falls back to it on the CPU, which has no fast kernels for float16. "half" is the half precision that the
    device computes faster: float16 on accelerators, bfloat16 on CPUs with instructions for it, none on others.
    """
    on_cpu = weight.device.type == "cpu"
    if precision == "half":
        precision = "float16" if not on_cpu else "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"
    if precision == "float32" or (precision == "float16" and on_cpu):
        return weight.dtype
    return torch.float16 if precision == "float16" else torch.bfloat16


def bias_act(
    x: Tensor, bias: Tensor | None, linear: bool = False, gain: float = 1.0, clamp: float | None = None
) -> Tensor:
    """Add a bias over dim 1, apply leaky ReLU times sqrt(2) (or nothing), times ``gain``, and clamp to +-clamp*gain."""
    bound = None if clamp is None else clamp * gain
    if bias is not None:
        x = x + bias.to(x.dtype).view(1, -1, *[1] * (x.ndim - 2))
    if not linear:
        x = F.leaky_relu(x, LRELU_SLOPE)
        gain = gain * LRELU_GAIN
    if gain != 1.0:
        x = x * gain
    return x if bound is None else x.clamp(-bound, bound)


class EqualLinear(nn.Module):
    """A fully connected layer whose weights are scaled by ``lr_multiplier / sqrt(inputs)`` when used."""

    def __init__(
        self, inputs: int, outputs: int, linear: bool = True, bias_init: float = 0.0, lr_multiplier: float = 1.0
    ):
        super().__init__()
        self.linear = linear
        self.lr_multiplier = lr_multiplier
        self.weight_gain = lr_multiplier / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias_init / lr_multiplier))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        weight = (self.weight * self.weight_gain).to(x.dtype)
        x = F.linear(x, weight, (self.bias * self.lr_multiplier).to(x.dtype))
        return x if self.linear else F.leaky_relu(x, LRELU_SLOPE) * LRELU_GAIN


class EqualConv2d(nn.Module):
    """A convolution with runtime weight scaling, an optional halving (low-pass, stride 2), bias and activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        bias: bool = True,
        linear: bool = False,
        down: bool = False,
        clamp: float | None = None,
    ):
        super().__init__()
        self.linear, self.down, self.clamp, self.kernel = linear, down, clamp, kernel
        self.weight_gain = 1 / math.sqrt(inputs * kernel**2)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W), or half of H and W if ``down``."""
        weight = (self.weight * self.weight_gain).to(x.dtype)
        if not self.down:
            x = F.conv2d(x, weight, padding=self.kernel // 2)
        elif self.kernel == 1:
            x = F.conv2d(fir.halve(x), weight)
        else:
            x = F.conv2d(fir.low_pass(x, padding=1 + self.kernel // 2), weight, stride=2)
        return bias_act(x, self.bias, self.linear, gain, self.clamp)


def modulated_conv(
    x: Tensor, weight: Tensor, style: Tensor, up: bool, demodulate: bool, fused: bool, gain: float = 1.0
) -> Tensor:
    """Convolve each sample with weights scaled per input channel by its own style (StyleGAN2, equations 1 and 3).

    Args:
        x: (N, I, H, W).
        weight: (O, I, k, k), float32.
        style: (N, I), float32.
        up: double the size: transposed convolution, then the low-pass filter.
        demodulate: divide by the norm of the scaled weights per output channel.
        fused: scale the weights of a batch of one, instead of the input and the output.
        gain: of the output; it costs nothing where that is demodulated.

    Returns:
        (N, O, H, W), or twice that size.

    Raises:
        ValueError: if ``fused`` is asked for more than one sample.
    """
    if fused and x.shape[0] != 1:
        raise ValueError(f"weights can be fused with the style of one sample, not of a batch of {x.shape[0]}")
    if demodulate and x.dtype == torch.float16:  # demodulation undoes any scale: choose one that cannot overflow
        weight = weight / weight.norm(float("inf"), dim=(1, 2, 3), keepdim=True) / math.sqrt(weight[0].numel())
        style = style / style.norm(float("inf"), dim=1, keepdim=True)
    scale = None
    if demodulate:
        energy = style.square() @ weight.square().sum(dim=(2, 3)).t()  # (N, O): no per-sample weights are needed
        scale = (energy + 1e-8).rsqrt() * gain
    elif gain != 1.0:
        weight = weight * gain
    if fused:
        weight = weight * style.view(1, -1, 1, 1)
        weight = weight if scale is None else weight * scale.view(-1, 1, 1, 1)
    else:
        x = x * style.to(x.dtype)[:, :, None, None]
    weight = weight.to(x.dtype)
    if up:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        x = fir.low_pass(x, padding=1, gain=4.0)
    else:
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    if not fused and scale is not None:
        x = x * scale.to(x.dtype)[:, :, None, None]
    return x


def _alone(module: nn.Module, x: Tensor) -> bool:
    """Whether weights may be fused with the style: a single picture, in inference."""
    return not module.training and not torch.is_grad_enabled() and x.shape[0] == 1


def _add(x: Tensor, y: Tensor) -> Tensor:
    """x + y in the dtype of x; without gradients x is overwritten, which saves a large map."""
    y = y.to(x.dtype)
    return x + y if torch.is_grad_enabled() else x.add_(y)


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias and leaky ReLU."""

    def __init__(
        self, inputs: int, outputs: int, w_size: int, resolution: int, up: bool = False, clamp: float | None = None
    ):
        super().__init__()
        self.up, self.clamp, self.resolution = up, clamp, resolution
        self.affine = EqualLinear(w_size, inputs, bias_init=1.0)
        self.weight_gain = 1 / math.sqrt(inputs * 9)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.noise: Tensor
        self.register_buffer("noise", torch.randn(resolution, resolution))

    def forward(self, x: Tensor, w: Tensor, noise: Noise = "random", gain: float = 1.0) -> Tensor:
        """(N, inputs, H, W) features and (N, w_size) styles to (N, outputs, H, W), or twice that size if ``up``."""
        bound = self.clamp * gain if self.clamp is not None and x.dtype == torch.float16 else None
        gain = gain * LRELU_GAIN  # where it costs nothing: a leaky ReLU of g x is g times that of x
        weight, style = self.weight * self.weight_gain, self.affine(w)
        x = modulated_conv(x, weight, style, self.up, demodulate=True, fused=_alone(self, x), gain=gain)
        if noise == "random":
            grain = torch.randn(x.shape[0], 1, *x.shape[2:], device=x.device, dtype=self.noise.dtype)
            x = _add(x, grain * (self.noise_strength * gain))
        elif noise == "const":
            x = _add(x, self.noise * (self.noise_strength * gain))
        x = _add(x, self.bias[:, None, None] * gain)
        x = F.leaky_relu(x, LRELU_SLOPE, inplace=not torch.is_grad_enabled())
        return x if bound is None else x.clamp(-bound, bound)


class ToImage(nn.Module):
    """Modulated 1x1 convolution to picture channels (StyleGAN2's ToRGB): no demodulation, no activation."""

    def __init__(self, inputs: int, outputs: int, w_size: int, clamp: float | None = None):
        super().__init__()
        self.clamp = clamp
        self.affine = EqualLinear(w_size, inputs, bias_init=1.0)
        self.weight_gain = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor, project: Tensor | None = None) -> Tensor:
        """(N, inputs, H, W) features and (N, w_size) styles to (N, outputs, H, W).

        ``project`` (P, outputs) is a linear map of the output channels; it is applied to the weights instead, so the
        result (N, P, H, W) costs no pass over the ``outputs`` channels.
        """
        style = self.affine(w) * self.weight_gain
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if project is not None:
            weight, bias = (project @ weight.flatten(1))[:, :, None, None], project @ bias
        x = modulated_conv(x, weight, style, up=False, demodulate=False, fused=_alone(self, x))
        return bias_act(x, bias, linear=True, clamp=self.clamp if x.dtype == torch.float16 else None)


class SynthesisBlock(nn.Module):
    """Two styled convolutions and a picture output that is added to the enlarged picture of the block before.

    Args:
        inputs: feature channels coming in; 0 for the first block, which starts from a learned constant.
        outputs: feature channels going out.
        image_channels: channels of the skip picture.
        w_size: length of a style.
        resolution: side of the output.
        up: whether the first convolution doubles the size.
        precision: dtype of the features; the picture has that of the weights.
        clamp: bound of the activations in float16.
        border: of the picture of the block before, when it is doubled, see `fir.double`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        image_channels: int,
        w_size: int,
        resolution: int,
        up: bool = True,
        precision: Precision = "float32",
        clamp: float | None = None,
        border: fir.Border = "zeros",
    ):
        super().__init__()
        self.up, self.precision, self.border = up and inputs > 0, precision, border
        self.constant = nn.Parameter(torch.randn(outputs, resolution, resolution)) if inputs == 0 else None
        self.conv0 = StyledConv(inputs, outputs, w_size, resolution, up=up, clamp=clamp) if inputs else None
        self.conv1 = StyledConv(outputs, outputs, w_size, resolution, clamp=clamp)
        self.to_image = ToImage(outputs, image_channels, w_size, clamp=clamp)

    @property
    def convolutions(self) -> int:
        """Styles used by the convolutions; the picture output takes one more, shared with the block after."""
        return 1 if self.conv0 is None else 2

    def forward(
        self,
        x: Tensor | None,
        image: Tensor | None,
        styles: Sequence[Tensor],
        noise: Noise = "random",
        project: Tensor | None = None,
        transform: Tensor | None = None,
        precision: Precision | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Features and picture in and out; ``styles`` holds ``convolutions + 1`` tensors (N, w_size).

        ``transform`` (N, 2, outputs / 2, H, W) scales and shifts the second half of the channels between the two
        convolutions: the channel-split spatial feature transform (Wang et al. 2021, GFP-GAN). ``precision`` replaces
        the block's own.
        """
        dtype = working_dtype(precision or self.precision, self.conv1.weight)
        memory = torch.channels_last if dtype.itemsize == 2 or not torch.is_grad_enabled() else torch.contiguous_format
        if self.constant is not None:
            x = self.constant.to(dtype).expand(styles[0].shape[0], -1, -1, -1)
        if x is None:
            raise ValueError("only the first block starts without features")
        x = x.to(dtype=dtype, memory_format=memory)
        if self.conv0 is not None:
            x = self.conv0(x, styles[0], noise)
        if transform is not None:
            kept, moved = x.chunk(2, dim=1)
            scale, shift = transform.to(x.dtype).unbind(1)
            x = torch.cat([kept, moved * scale + shift], dim=1)
        x = self.conv1(x, styles[-2], noise)
        out = self.to_image(x, styles[-1], project).to(self.conv1.weight.dtype)
        if image is not None:
            out = _add(out, fir.double(image, self.border) if self.up else image)
        return x, out.contiguous()


class Synthesis(nn.Module):
    """StyleGAN2's skip synthesis: styles to a picture with any number of channels.

    Attributes:
        w_count: number of styles it takes: one for each convolution and one for the last picture output.
    """

    def __init__(self, config: SynthesisConfig, image_channels: int, w_size: int):
        super().__init__()
        sides = config.sides
        if not sides or config.resolution != sides[-1]:
            raise ValueError(f"the resolution of a synthesis network is a power of two of at least 4, not {config}")
        first_half = len(sides) - config.half_blocks
        self.blocks = nn.ModuleList(
            SynthesisBlock(
                config.channels(side // 2) if n else 0,
                config.channels(side),
                image_channels,
                w_size,
                side,
                precision=config.precision if n >= first_half else "float32",
                clamp=config.clamp,
                border=config.border,
            )
            for n, side in enumerate(sides)
        )
        self.w_count = 2 * len(sides)

    def forward(self, ws: Tensor, noise: Noise = "random", project: Tensor | None = None) -> Tensor:
        """(N, at least w_count, w_size) styles to a (N, image_channels, resolution, resolution) picture.

        With ``project`` (P, image_channels), the picture's channels go through that linear map: since all pictures are
        added up, mapping each block's contribution gives the same (N, P, resolution, resolution) for less.
        """
        if ws.shape[1] < self.w_count:
            raise ValueError(f"this synthesis network takes {self.w_count} styles, not {ws.shape[1]}")
        x: Tensor | None = None
        image: Tensor | None = None
        first = 0
        for block in self.blocks:
            assert isinstance(block, SynthesisBlock)
            x, image = block(x, image, ws[:, first : first + block.convolutions + 1].unbind(1), noise, project)
            first += block.convolutions
        assert image is not None
        return image
