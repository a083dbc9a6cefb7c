"""The 2D half of GIRAFFE's renderer: a small feature image becomes a picture (GIRAFFE, Sec. 3.3).

Every level doubles the side (nearest neighbour), convolves, and adds its own RGB picture to the bilinearly enlarged and
blurred one of the level below. :meth:`NeuralRenderer.reference` does just that. :meth:`NeuralRenderer.forward`
gives the same picture with less work: enlarging by nearest neighbour and then convolving with 3x3 reads each small
pixel up to nine times; one transposed convolution with the 4x4 kernel that both make together reads it four times, and
the enlarged image is never stored. Enlarging and blurring RGB is one small matrix from the left and from the right.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2  # GIRAFFE: leaky ReLU of renderer and discriminator


class NeuralRenderer(nn.Module):
    """(N, C, side, side) features to (N, 3, resolution, resolution) pictures in [-1, 1].

    Args:
        channels: C; halved at each level.
        side: side of the feature image.
        resolution: side of the picture: ``side`` times a power of two, at least two.
        min_channels: no level has fewer.
    """

    def __init__(self, channels: int, side: int, resolution: int, min_channels: int) -> None:
        super().__init__()
        levels = (resolution // side).bit_length() - 1
        if levels < 1 or side << levels != resolution:
            raise ValueError(f"a feature image of {side} cannot be doubled to a picture of {resolution}")
        widths = [channels] + [max(channels >> i, min_channels) for i in range(1, levels + 1)]
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)])
        self.to_rgb = nn.ModuleList([nn.Conv2d(width, 3, 3, padding=1) for width in widths])
        for level in range(levels):
            self.register_buffer(f"enlarge{level}", enlarging_matrix(side << level), persistent=False)
        # Enlarging by nearest neighbour, then three taps = four taps of a transposed convolution with stride 2.
        taps = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
        self.register_buffer("taps", taps, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        rgb = self.to_rgb[0](features)
        for level, (conv, to_rgb) in enumerate(zip(self.convs, self.to_rgb[1:])):
            kernel = torch.einsum("ap,oipq,bq->ioab", self.taps, conv.get_parameter("weight"), self.taps)
            features = F.conv_transpose2d(features, kernel, conv.get_parameter("bias"), stride=2, padding=1)
            features = F.leaky_relu_(features, SLOPE)
            matrix = self.get_buffer(f"enlarge{level}")
            rgb = matrix @ rgb @ matrix.T + to_rgb(features)
        return torch.tanh(rgb / 2)  # GIRAFFE's sigmoid, stretched from [0, 1] to [-1, 1]

    def reference(self, features: Tensor) -> Tensor:
        """The plain form of :meth:`forward`."""
        rgb = enlarge_rgb(self.to_rgb[0](features))
        for level, (conv, to_rgb) in enumerate(zip(self.convs, self.to_rgb[1:])):
            features = F.leaky_relu(conv(F.interpolate(features, scale_factor=2.0, mode="nearest")), SLOPE)
            rgb = rgb + to_rgb(features)
            if level < len(self.convs) - 1:
                rgb = enlarge_rgb(rgb)
        return 2 * torch.sigmoid(rgb) - 1


def enlarge_rgb(image: Tensor) -> Tensor:
    """Double the side of (N, C, H, W) bilinearly, then blur with [1, 2, 1] / 4 in both directions, edges reflected."""
    image = F.interpolate(image, scale_factor=2.0, mode="bilinear", align_corners=False)
    kernel = torch.tensor([0.25, 0.5, 0.25], dtype=image.dtype, device=image.device)
    channels = image.shape[1]
    weight = (kernel[:, None] * kernel).expand(channels, 1, 3, 3)
    return F.conv2d(F.pad(image, (1, 1, 1, 1), mode="reflect"), weight, groups=channels)


def enlarging_matrix(side: int) -> Tensor:
    """The (2 side, side) matrix M with ``enlarge_rgb(x) = M x M^T`` for pictures of that side."""
    # The operation is separable and keeps constants: columns of unit pulses, constant across the picture, give M.
    pulses = torch.eye(side)[:, None, :, None].expand(side, 1, side, side)
    return enlarge_rgb(pulses)[:, 0, :, 0].T.contiguous()
