"""EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation and with ReLU6), for features of pictures.

Parameters bear the names of the published checkpoint, so that it loads as it is.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.features import load_strictly

# Repeats, kernel, stride of the first, expansion, output channels: the seven stages.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
SIDE = 224  # pixels it was trained at
FEATURES = 1280


class _SameConv(nn.Conv2d):
    """A convolution with TensorFlow's padding: what is odd goes below and to the right."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = []
        for size in (x.shape[-1], x.shape[-2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> _SameConv:
    return _SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = _conv(inputs, inner), _norm(inner)
        self._depthwise_conv, self._bn1 = _conv(inner, inner, kernel, stride, inner), _norm(inner)
        self._project_conv, self._bn2 = _conv(inner, outputs), _norm(outputs)
        self.expands, self.residual = expansion > 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        inner = self._bn2(self._project_conv(F.relu6(self._bn1(self._depthwise_conv(inner)))))
        return x + inner if self.residual else inner


class EfficientNetLite0(nn.Module):
    """Pictures to 1280 features, or to the logits of ImageNet's 1000 classes."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _conv(3, 32, 3, 2), _norm(32)
        blocks: list[nn.Module] = []
        width = 32
        for repeats, kernel, stride, expansion, outputs in _STAGES:
            for n in range(repeats):
                blocks.append(_Block(width, outputs, kernel, stride if n == 0 else 1, expansion))
                width = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = _conv(width, FEATURES), _norm(FEATURES)
        self._fc = nn.Linear(FEATURES, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to features (N, 1280), the mean over the last map."""
        x = (images * 127.5 + 0.5) / 128  # (v - 127) / 128 of v in [0, 255], as it was trained
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))

    def classify(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to logits (N, 1000)."""
        return self._fc(self(images))

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> EfficientNetLite0:
        """The network with these weights, in evaluation mode.

        Raises:
            ValueError: if they are another network's.
        """
        return load_strictly(cls(), state, "EfficientNet-Lite0")
