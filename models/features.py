"""Feature networks for evaluation, implemented here and filled with weights the user supplies."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class MaxFeatureMap(nn.Module):
    """A layer with twice the outputs, of which each pair's larger one is kept (Wu et al. 2018, eq. 2)."""

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.filter = layer

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.filter(x).chunk(2, dim=1)
        return torch.maximum(first, second)


def _mfm(inputs: int, outputs: int, kernel: int) -> MaxFeatureMap:
    return MaxFeatureMap(nn.Conv2d(inputs, 2 * outputs, kernel, padding=kernel // 2))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _mfm(channels, channels, 3)
        self.conv2 = _mfm(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))


class _Group(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_a = _mfm(inputs, inputs, 1)
        self.conv = _mfm(inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv_a(x))


class LightCNN29(nn.Module):
    """LightCNN with 29 layers (Wu et al. 2018, table 2), without its classifier.

    Names of parameters are those of the authors' checkpoint, so that it loads as it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _mfm(1, 48, 5)
        self.block1, self.group1 = self._blocks(48, 1), _Group(48, 96)
        self.block2, self.group2 = self._blocks(96, 2), _Group(96, 192)
        self.block3, self.group3 = self._blocks(192, 3), _Group(192, 128)
        self.block4, self.group4 = self._blocks(128, 4), _Group(128, 128)
        self.fc = MaxFeatureMap(nn.Linear(8 * 8 * 128, 512))
        self.pool = nn.MaxPool2d(2)

    @staticmethod
    def _blocks(channels: int, count: int) -> nn.Sequential:
        return nn.Sequential(*(_Residual(channels) for _ in range(count)))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> LightCNN29:
        """The network with these weights, frozen, in evaluation mode; the classifier ``fc2`` is left out.

        Raises:
            ValueError: a tensor is missing, unknown, or has another shape; says which.
        """
        with torch.device("meta"):
            network = cls()
        wanted = network.state_dict()
        given = {name: value for name, value in state.items() if not name.startswith("fc2.")}
        missing, unknown = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
        if missing or unknown:
            raise ValueError(f"{len(missing)} tensors missing {missing[:3]}, {len(unknown)} unknown {unknown[:3]}")
        for name, value in given.items():
            if value.shape != wanted[name].shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}, not {tuple(wanted[name].shape)}")
        network.load_state_dict({name: value.float() for name, value in given.items()}, assign=True)
        return network.eval().requires_grad_(False)

    def forward(self, grey: Tensor) -> Tensor:
        """(N, 1, 128, 128) grey pictures in [0, 1] to (N, 256) embeddings."""
        if grey.shape[1:] != (1, 128, 128):
            raise ValueError(f"LightCNN-29 takes (N, 1, 128, 128) pictures, not {tuple(grey.shape)}")
        x = self.pool(self.conv1(grey))
        x = self.pool(self.group1(self.block1(x)))
        x = self.pool(self.group2(self.block2(x)))
        x = self.group3(self.block3(x))
        x = self.pool(self.group4(self.block4(x)))
        return self.fc(x.flatten(1))
