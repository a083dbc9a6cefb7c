"""GIRAFFE's discriminator, cut in two for momentum contrast (Sec. 3.2 and Fig. 2 of the AamNCE paper).

The body EncA turns a picture into a 4x4 feature image. The CNN head scores it; the shared Conv projects it to the query
of the contrastive loss. EncB, a momentum copy of the body, and the same Conv make the keys.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.giraffe import GiraffeConfig
from models.losses.contrastive import momentum_update
from models.render.neural import SLOPE


class Encoder(nn.Module):
    """EncA, and EncB: stride-2 4x4 convolutions without bias or norm, down to 4x4; widths double up to the last."""

    def __init__(self, config: GiraffeConfig) -> None:
        super().__init__()
        layers = config.resolution.bit_length() - 3
        last = config.discriminator_channels
        if last >> (layers - 1) < 1:
            raise ValueError(f"{last} channels cannot be halved {layers - 1} times for pictures of {config.resolution}")
        widths = [3] + [last >> (layers - 1 - i) for i in range(layers)]
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False) for a, b in pairwise(widths)])

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) pictures in [-1, 1] to (N, C, 4, 4) features."""
        x = (image + 1) / 2  # the public network sees [0, 1]
        for conv in self.convs:
            x = F.leaky_relu(conv(x), SLOPE, inplace=True)
        return x


class Discriminator(nn.Module):
    """D_phi = CNN(EncA(.)), and the projection Conv that the contrastive loss adds to it.

    Attributes:
        body: EncA.
        cnn: the head, one 4x4 convolution as in the public discriminator.
        conv: the shared projection, one 4x4 convolution to a vector (its kernel is unpublished: our choice).
    """

    def __init__(self, config: GiraffeConfig) -> None:
        super().__init__()
        self.body = Encoder(config)
        self.cnn = nn.Conv2d(config.discriminator_channels, 1, 4, bias=False)
        self.conv = nn.Conv2d(config.discriminator_channels, config.projection, 4, bias=False)

    def encode(self, image: Tensor) -> Tensor:
        """EncA: (N, 3, H, W) pictures in [-1, 1] to (N, C, 4, 4) features."""
        return self.body(image)

    def head(self, features: Tensor) -> Tensor:
        """CNN: (N, C, 4, 4) features to (N,) logits, positive for "real"."""
        return self.cnn(features).flatten()

    def project(self, features: Tensor) -> Tensor:
        """Conv: (N, C, 4, 4) features to (N, projection) queries or keys, not normalised."""
        return self.conv(features).flatten(1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) pictures in [-1, 1] to (N,) logits."""
        return self.head(self.encode(image))

    def queries(self, image: Tensor) -> Tensor:
        """q of frontal pictures I_c: (N, 3, H, W) to (N, projection); gradients reach the body and the picture."""
        return self.project(self.encode(image))


class MomentumEncoder(nn.Module):
    """EncB: follows EncA slowly and never sees a gradient."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.body = copy.deepcopy(discriminator.body).requires_grad_(False)

    @torch.no_grad()
    def keys(self, image: Tensor, discriminator: Discriminator) -> Tensor:
        """k of pictures: (N, 3, H, W) to (N, projection), through EncB and the shared Conv."""
        return discriminator.project(self.body(image))

    def follow(self, discriminator: Discriminator, momentum: float) -> None:
        """EncB <- momentum EncB + (1 - momentum) EncA."""
        momentum_update(self.body, discriminator.body, momentum)
