"""dlib's face embedding: a ResNet of 29 layers that takes 150 px faces to 128 numbers (King 2017).

dlib runs it on the CPU alone, one picture at a time; here it is a network like the others, ten times as fast, with the
same weights and the same numbers up to rounding. `ops.evaluate.dlibfile` reads dlib's own file.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE, DIMENSIONS = 150, 128
# Filters of each residual block, and whether it halves the side; after a 7x7 convolution of stride 2 and 32 filters.
_BLOCKS = (
    *((32, False),) * 3,
    *((64, True), (64, False), (64, False), (64, False)),
    *((128, True), (128, False), (128, False)),
    *((256, True), (256, False), (256, False)),
    (256, True),
)
_MEAN, _SCALE = (122.782, 117.001, 104.298), 256.0  # dlib: input_rgb_image's averages of red, green, blue


class _Block(nn.Module):
    """Two 3x3 convolutions, added to what came in; where the side is halved, to its 2x2 means."""

    def __init__(self, inputs: int, outputs: int, down: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=2 if down else 1, padding=0 if down else 1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu_(self.first(x)))
        return F.relu_(_add(y, F.avg_pool2d(x, 2) if self.down else x))


def _add(a: Tensor, b: Tensor) -> Tensor:
    """The sum of two maps as dlib has it: where one has fewer channels, rows or columns, it is continued by zeros."""
    if a.shape == b.shape:
        return a + b
    channels, height, width = (max(x, y) for x, y in zip(a.shape[1:], b.shape[1:]))
    a, b = (F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2], 0, channels - x.shape[1])) for x in (a, b))
    return a + b


class DlibFace(nn.Module):
    """The network, its normalisations folded into the convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 7, stride=2)
        widths = [32] + [width for width, _ in _BLOCKS]
        self.blocks = nn.Sequential(*(_Block(w, out, down) for w, (out, down) in zip(widths, _BLOCKS)))
        self.last = nn.Linear(256, DIMENSIONS, bias=False)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def from_parameters(cls, convolutions: Sequence[Tensor], affine: Sequence[Tensor], last: Tensor) -> DlibFace:
        """The network with dlib's parameters, frozen.

        Args:
            convolutions: flat filters, then biases, of each convolution from the picture on.
            affine: flat gains, then shifts, of what follows each.
            last: flat (256, 128) matrix.

        Raises:
            ValueError: their numbers or sizes are others; says which.
        """
        network = cls()
        layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        if not len(layers) == len(convolutions) == len(affine):
            raise ValueError(f"{len(convolutions)} convolutions and {len(affine)} gains, not {len(layers)} of each")
        for number, (layer, values, gains) in enumerate(zip(layers, convolutions, affine)):
            filters, outputs = layer.weight.numel(), layer.out_channels
            if len(values) != filters + outputs or len(gains) != 2 * outputs:
                raise ValueError(f"convolution {number} has {len(values)} parameters, not {filters + outputs}")
            gain, shift = gains.split(outputs)
            layer.weight.data = values[:filters].view_as(layer.weight) * gain.view(-1, 1, 1, 1)
            layer.bias.data = values[filters:] * gain + shift  # type: ignore[union-attr]
        if len(last) != network.last.weight.numel():
            raise ValueError(f"the last matrix has {len(last)} numbers, not {network.last.weight.numel()}")
        network.last.weight.data = last.view(256, DIMENSIONS).T.contiguous()
        return network.to(memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]

    def forward(self, faces: Tensor) -> Tensor:
        """(N, 3, 150, 150) faces, red, green, blue in [0, 255], to (N, 128) embeddings."""
        if faces.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"dlib's embedding takes (N, 3, {SIDE}, {SIDE}) pictures, not {tuple(faces.shape)}")
        x = F.relu_(self.first((faces - self.get_buffer("mean")) / _SCALE))
        return self.last(self.blocks(F.max_pool2d(x, 3, 2)).mean(dim=(2, 3)))
