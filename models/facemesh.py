"""FaceMesh (Kartynnik et al. 2019), for gradients: the network that the labels' landmarks come from, as torch layers.

The published file runs fast elsewhere, but only forwards. Here its weights fill the same layers, so that a loss may
look at a generated face through it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from models.features import load_strictly

SIDE = 192  # pixels that it sees
POINTS = 468
CHANNELS, PLACES = 128, 6  # of what its trunk sees: 6 x 6 places

# Channels after each stage and its residual blocks; a stage but the first begins by halving the picture.
_STAGES = ((16, 2), (32, 3), (64, 3), (128, 3), (128, 3), (128, 3))
_NARROW = 32  # channels before the landmarks


def _same(x: Tensor, stride: int) -> Tensor:
    """TensorFlow's padding for a kernel of 3: what is odd goes below and to the right."""
    return F.pad(x, (0, 1, 0, 1)) if stride == 2 else F.pad(x, (1, 1, 1, 1))


class _Stem(nn.Module):
    """The first convolution, which halves the picture."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, outputs, 3, 2), nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(_same(x, 2)))


class _Block(nn.Module):
    """Filter by depth, project, add the input: halved and with empty channels where sizes ask for it."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.more = stride, outputs - inputs
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, groups=inputs)
        self.project = nn.Conv2d(inputs, outputs, 1)
        self.act = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        found = self.project(self.depthwise(_same(x, self.stride)))
        skip = F.max_pool2d(x, 2) if self.stride == 2 else x
        return self.act(found + (F.pad(skip, (0, 0, 0, 0, 0, self.more)) if self.more else skip))


class FaceMesh(nn.Module):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        width = _STAGES[0][0]
        blocks: list[nn.Module] = [_Stem(width)]
        for number, (channels, count) in enumerate(_STAGES):
            for n in range(count):
                blocks.append(_Block(width, channels, 2 if number and n == 0 else 1))
                width = channels
        self.shared = nn.Sequential(*blocks)
        self.narrow, self.narrow_act = nn.Conv2d(width, _NARROW, 1), nn.PReLU(_NARROW)
        self.narrow_block = _Block(_NARROW, _NARROW)
        self.last = nn.Conv2d(_NARROW, 3 * POINTS, 3)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> FaceMesh:
        """The network with the published file's weights, by their names there; frozen, in evaluation mode.

        Raises:
            ValueError: they are another network's; says which tensor shows it.
        """
        network = cls()
        filled, count = {}, {"conv2d": 0, "depthwise_conv2d": 0, "p_re_lu": 0}
        for name, layer in network.named_modules():
            if isinstance(layer, nn.PReLU):
                kind, parts = "p_re_lu", {"Alpha": "weight"}
            elif isinstance(layer, nn.Conv2d):
                kind = "depthwise_conv2d" if layer.groups > 1 else "conv2d"
                parts = {"Kernel": "weight", "Bias": "bias"}
            else:
                continue
            count[kind] += 1
            for theirs, ours in parts.items():
                key = f"{kind}_{count[kind]}/{theirs}"
                if key not in state:
                    raise ValueError(f"not FaceMesh weights: {key} is missing")
                value = state[key].float()
                if theirs == "Kernel":  # rows, columns and channels come in another order
                    value = value.permute(3, 0, 1, 2) if kind == "depthwise_conv2d" else value.permute(0, 3, 1, 2)
                filled[f"{name}.{ours}"] = value.flatten() if theirs == "Alpha" else value.contiguous()
        return load_strictly(network, filled, "FaceMesh")

    @property
    def trunk(self) -> nn.Sequential:
        """Its layers to where landmarks begin to be told apart: (N, 3, 192, 192) in [0, 1] to (N, 128, 6, 6)."""
        return nn.Sequential(*list(self.shared)[: -_STAGES[-1][1]])

    def forward(self, faces: Tensor) -> Tensor:
        """Pictures (N, 3, 192, 192) in [0, 1] to landmarks (N, 468, 3) in their pixels; z away from the camera."""
        if faces.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"FaceMesh takes (N, 3, {SIDE}, {SIDE}) pictures, not {tuple(faces.shape)}")
        x = self.narrow_act(self.narrow(self.shared(faces)))
        return self.last(self.narrow_block(x)).flatten(1).unflatten(1, (POINTS, 3))
