"""LPIPS (Zhang et al. 2018): how different two pictures look, by the features of VGG-16 or AlexNet.

Features of five layers are normalised over channels; squared differences are weighted per channel by the published
linear heads, averaged over the picture, and added up. Without the published weights nothing here may be called LPIPS.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.features import load_strictly

Net = Literal["vgg", "alex"]
# ImageNet's mean and deviation of [0, 1] pictures, brought to [-1, 1]: LPIPS' scaling layer.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_VGG = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
CHANNELS: dict[Net, tuple[int, ...]] = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}


def _vgg_layers() -> tuple[nn.Sequential, tuple[int, ...]]:
    """VGG-16's convolutions, numbered as published, and the places whose output is compared."""
    layers: list[nn.Module] = []
    seen = []
    width = 3
    for n, widths in enumerate(_VGG):
        if n:
            layers.append(nn.MaxPool2d(2))
        for outputs in widths:
            layers += [nn.Conv2d(width, outputs, 3, padding=1), nn.ReLU()]
            width = outputs
        seen.append(len(layers) - 1)
    return nn.Sequential(*layers), tuple(seen)


def _alex_layers() -> tuple[nn.Sequential, tuple[int, ...]]:
    """AlexNet's convolutions (the one-tower form), numbered as published, and the places whose output is compared."""
    layers = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )
    return layers, (1, 4, 7, 9, 11)


class Lpips(nn.Module):
    """The distance; see the module's text.

    ``backbone`` has the published numbering (``features.N`` of the ImageNet checkpoint); ``heads`` are the weights of
    the five 1x1 convolutions.
    """

    def __init__(self, net: Net):
        super().__init__()
        self.net = net
        self.backbone, self.places = _vgg_layers() if net == "vgg" else _alex_layers()
        self.heads = nn.ParameterList(nn.Parameter(torch.ones(c) / c) for c in CHANNELS[net])

    def features(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) in [-1, 1] to five maps of unit vectors (N, C, h, w)."""
        x = (images - images.new_tensor(SHIFT).view(1, 3, 1, 1)) / images.new_tensor(SCALE).view(1, 3, 1, 1)
        out = []
        for place, layer in enumerate(self.backbone):
            x = layer(x)
            if place in self.places:
                out.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return out

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two batches (N, 3, H, W) in [-1, 1] to distances (N,).

        Raises:
            ValueError: if their sizes differ.
        """
        if a.shape != b.shape:
            raise ValueError(f"LPIPS compares pictures of one size, not {tuple(a.shape)} with {tuple(b.shape)}")
        total = a.new_zeros(len(a))
        for one, other, head in zip(self.features(a), self.features(b), self.heads):
            total = total + torch.einsum("nchw,c->nhw", (one - other).square(), head).mean(dim=(1, 2))
        return total

    @classmethod
    def from_state(cls, net: Net, backbone: dict[str, Tensor], heads: dict[str, Tensor]) -> Lpips:
        """Load ImageNet's checkpoint of the backbone and LPIPS' own heads (``lin0.model.1.weight`` ...).

        Raises:
            ValueError: if either is another network's.
        """
        network = cls(net)
        layers = {k.removeprefix("features."): v for k, v in backbone.items() if k.startswith("features.")}
        load_strictly(network.backbone, layers, f"{net}'s ImageNet")
        for n, head in enumerate(network.heads):
            found = heads.get(f"lin{n}.model.1.weight")
            if found is None or found.numel() != head.numel():
                raise ValueError(
                    f"not the heads of LPIPS for {net}: lin{n}.model.1.weight is missing or of another size"
                )
            head.data.copy_(found.flatten())
        return network.eval().requires_grad_(False)


def unit_difference(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference (N,) of two feature maps (N, C, h, w) after normalising channels: LPIPS without heads."""
    return (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(dim=1).mean(dim=(1, 2))
