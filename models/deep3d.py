"""Deep3DFaceRecon's network (Deng et al. 2019): a face picture to the coefficients of BFM 2009.

A ResNet-50 whose mean features go through seven linear layers. Parameters bear the names of the authors' checkpoint.
AniPortraitGAN reads the codes of generated faces by it (paper Eq. 9).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import fir
from models.features import load_strictly

SIDE = 224  # pixels of an aligned face
SCALE = 102.0  # pixels a decimetre, of an aligned face: sicxu/Deep3DFaceRecon_pytorch util/preprocess.py
IDENTITY, EXPRESSION = 80, 64
# Eyes (picture's left, right), nose and corners of the mouth of the standard face that pictures are aligned to, in
# decimetres, y up, z towards the camera: its BFM/similarity_Lm3D_all.mat. The origin is the aligned picture's middle.
FIVE = (
    (-0.31148657, 0.29036078, 0.13377953),
    (0.30979887, 0.28972036, 0.13179526),
    (0.0032535, -0.04617932, 0.55244243),
    (-0.25216928, -0.38133916, 0.22405732),
    (0.2484662, -0.38128236, 0.22235769),
)
_SIZES = (IDENTITY, EXPRESSION, 80, 3, 27, 2, 1)
_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # ResNet-50: inner channels, blocks
_WIDER = 4  # outer channels an inner one
_COUNTERS = "num_batches_tracked"  # of batch normalisation; some writers leave them out, and nothing reads them


class Reading(NamedTuple):
    """What is read off N faces.

    Attributes:
        identity, expression, texture: (N, 80), (N, 64) and (N, 80) codes in BFM's standard deviations.
        angles: (N, 3) turns about x, y and z, radians.
        light: (N, 27). shift: (N, 3) decimetres.
    """

    identity: Tensor
    expression: Tensor
    texture: Tensor
    angles: Tensor
    light: Tensor
    shift: Tensor


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, inner: int, stride: int):
        super().__init__()
        outer = _WIDER * inner
        self.conv1, self.bn1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, outer, 1, bias=False), nn.BatchNorm2d(outer)
        changes = stride > 1 or inputs != outer
        short = nn.Sequential(nn.Conv2d(inputs, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
        self.downsample = short if changes else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class _ResNet50(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        width = 64
        for n, (inner, count) in enumerate(_STAGES, 1):
            blocks = []
            for block in range(count):
                blocks.append(_Bottleneck(width, inner, 2 if block == 0 and n > 1 else 1))
                width = _WIDER * inner
            self.add_module(f"layer{n}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for n in range(1, len(_STAGES) + 1):
            x = self.get_submodule(f"layer{n}")(x)
        return x.mean(dim=(2, 3), keepdim=True)


class Deep3DFaceRecon(nn.Module):
    """Aligned faces to the coefficients of BFM."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _ResNet50()
        features = _WIDER * _STAGES[-1][0]
        self.final_layers = nn.ModuleList(nn.Conv2d(features, size, 1) for size in _SIZES)

    def forward(self, images: Tensor) -> Reading:
        """(N, 3, 224, 224) in [0, 1], RGB, aligned by five points, to their coefficients."""
        features = self.backbone(images)
        found = torch.cat([layer(features).flatten(1) for layer in self.final_layers], dim=1)
        return Reading(*found.split([*_SIZES[:5], _SIZES[5] + _SIZES[6]], dim=1))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Deep3DFaceRecon:
        """The network with these weights, in evaluation mode.

        Raises:
            ValueError: if they are another network's.
        """
        network = cls()
        counters = {name: value for name, value in network.state_dict().items() if name.endswith(_COUNTERS)}
        return load_strictly(network, {**counters, **state}, "Deep3DFaceRecon")


class FaceReader(nn.Module):
    """Deep3DFaceRecon on faces that are framed alike, so that the part it looks at is always the same.

    Args:
        network: with its weights.
    """

    identity, expression = IDENTITY, EXPRESSION

    def __init__(self, network: Deep3DFaceRecon) -> None:
        super().__init__()
        self.network = network
        self.side, self.left, self.top = window()

    def aligned(self, face: Tensor) -> Tensor:
        """(N, 3, r, r) in [-1, 1], framed as FFHQ's square, to (N, 3, 224, 224) in [0, 1]; what lies outside repeats
        the border."""
        x = (fir.resize(face, self.side) + 1) / 2
        beyond = [max(0, -self.left), max(0, self.left + SIDE - self.side)]
        beyond += [max(0, -self.top), max(0, self.top + SIDE - self.side)]
        x = F.pad(x, beyond, mode="replicate")
        left, top = self.left + beyond[0], self.top + beyond[2]
        return x[..., top : top + SIDE, left : left + SIDE]

    def forward(self, face: Tensor) -> tuple[Tensor, Tensor]:
        """Identity (N, 80) and expression (N, 64) of faces (N, 3, r, r) in [-1, 1], framed as FFHQ's square."""
        reading = self.network(self.aligned(face))
        return reading.identity, reading.expression


def window() -> tuple[int, int, int]:
    """The aligned face in FFHQ's square: the side of the square in the aligned face's pixels, and the aligned face's
    left and top in it. By FFHQ's rule for the standard face: side max(4 eye to eye, 3.6 eyes to mouth), its middle a
    tenth of the way from the eyes to the mouth below the eyes."""
    (left, y, _), (right, *_), _, (_, mouth, _), _ = FIVE
    side = SCALE * max(4 * (right - left), 3.6 * (y - mouth))
    middle = SCALE * (y - 0.1 * (y - mouth))
    return round(side), round(side / 2 - SIDE / 2), round(side / 2 + middle - SIDE / 2)
