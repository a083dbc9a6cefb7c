"""FIR resampling of pictures and feature maps with StyleGAN2's binomial low-pass filter, as depthwise convolutions.

Everything is an ordinary convolution, so it runs on any device, differentiates twice (R1) and compiles. The filter is
``[1, 3, 3, 1] / 8`` along both axes; borders see zeros unless told otherwise. A signal that is enlarged twice is scaled
by 4 per pixel so that its brightness stays (Karras et al. 2020, appendix B).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Border = Literal["zeros", "edge"]  # what lies around a picture: nothing, or its outermost pixels once more

TAPS = (1.0, 3.0, 3.0, 1.0)


def _build(taps: tuple[float, ...], gain: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    line = torch.tensor(taps, dtype=torch.float64)
    line = line / line.sum()
    return (torch.outer(line, line) * gain).to(device=device, dtype=dtype)


@lru_cache(maxsize=64)
def _cached(taps: tuple[float, ...], gain: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # a kernel first made in inference must serve training as well
        return _build(taps, gain, device, dtype)


def _depthwise(x: Tensor, taps: tuple[float, ...], gain: float) -> Tensor:
    build = _build if torch.compiler.is_compiling() else _cached  # the compiler folds the constant by itself
    kernel = build(taps, gain, x.device, x.dtype)
    return kernel.expand(x.shape[1], 1, *kernel.shape)


def low_pass(x: Tensor, padding: int = 1, taps: tuple[float, ...] = TAPS, gain: float = 1.0) -> Tensor:
    """Filter (N, C, H, W); with k taps and ``padding`` zeros a side the result is (H + 2 padding + 1 - k) high."""
    return F.conv2d(x, _depthwise(x, taps, gain), padding=padding, groups=x.shape[1])


def double(x: Tensor, border: Border = "zeros") -> Tensor:
    """(N, C, H, W) to (N, C, 2H, 2W): zeros between the pixels, then the low-pass filter times 4.

    With ``border="zeros"``, as in StyleGAN2, the outermost pixels lose a quarter of their value a side.
    """
    if border == "edge":
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    padding = 3 if border == "edge" else 1
    return F.conv_transpose2d(x, _depthwise(x, TAPS, 4.0), stride=2, padding=padding, groups=x.shape[1])


def halve(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, H/2, W/2): the low-pass filter, then every second pixel. H and W are even."""
    return F.conv2d(x, _depthwise(x, TAPS, 1.0), stride=2, padding=1, groups=x.shape[1])


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Blur (N, C, H, W) with taps ``2 ** -(i / sigma)**2`` for |i| <= 3 sigma, as EG3D blurs what its critic sees.

    A sigma below 1/3 pixel leaves the picture as it is. The border is zero-padded.
    """
    reach = int(sigma * 3)
    if reach < 1:
        return x
    line = (torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype) / sigma).square().neg().exp2()
    line = line / line.sum()
    channels = x.shape[1]
    x = F.conv2d(x, line.expand(channels, 1, 1, -1), padding=(0, reach), groups=channels)
    return F.conv2d(x, line[:, None].expand(channels, 1, -1, 1), padding=(reach, 0), groups=channels)


def resize(x: Tensor, size: int) -> Tensor:
    """Bilinear resize of (N, C, H, W) to ``size`` square, antialiased where it shrinks; no copy if it fits."""
    if x.shape[-1] == size and x.shape[-2] == size:
        return x
    shrinks = x.shape[-1] > size or x.shape[-2] > size
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=shrinks)
