"""ArcFace's IR-50 (Deng et al. 2019), for identity embeddings.

Parameters bear the names of InsightFace's checkpoint.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.features import load_strictly

SIDE = 112  # pixels of an aligned face
FEATURES = 512
_STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-5)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.bn1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2, self.prelu = _norm(outputs), nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = _norm(outputs)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), _norm(outputs)) if stride > 1 else None
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return inner + (x if self.downsample is None else self.downsample(x))


class ArcFaceIR50(nn.Module):
    """Aligned faces to identity embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.prelu = nn.Conv2d(3, 64, 3, padding=1, bias=False), _norm(64), nn.PReLU(64)
        width = 64
        for n, (outputs, units) in enumerate(_STAGES, 1):
            blocks = [_Block(width if u == 0 else outputs, outputs, 2 if u == 0 else 1) for u in range(units)]
            self.add_module(f"layer{n}", nn.Sequential(*blocks))
            width = outputs
        self.bn2 = _norm(width)
        self.fc = nn.Linear(width * 7 * 7, FEATURES)
        self.features = nn.BatchNorm1d(FEATURES, eps=1e-5)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, 112, 112) in [-1, 1], RGB, aligned by the five points, to unit vectors (N, 512)."""
        x = self.prelu(self.bn1(self.conv1(images)))
        for n in range(1, len(_STAGES) + 1):
            x = self.get_submodule(f"layer{n}")(x)
        return F.normalize(self.features(self.fc(self.bn2(x).flatten(1))))

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> ArcFaceIR50:
        """The network with these weights, in evaluation mode.

        Raises:
            ValueError: if they are another network's.
        """
        return load_strictly(cls(), state, "ArcFace IR-50")
