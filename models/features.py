"""Feature networks for evaluation and perceptual losses, implemented here, filled with weights from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def load_strictly(network: Network, state: Mapping[str, Tensor], name: str) -> Network:
    """Fill a network with exactly these weights and freeze it, in evaluation mode.

    Args:
        network: filled in place, and returned.
        state: name to tensor, neither more nor fewer than the network has.
        name: whose weights are wanted, for the message.

    Raises:
        ValueError: the weights are another network's; says which tensor shows it.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"not {name} weights: {str(error).splitlines()[-1].strip()}") from None
    return network.eval().requires_grad_(False)


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


# MobileNetV2 (Sandler et al. 2018, table 2): expansion t, channels c, repeats n, first stride s.
_BOTTLENECKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation that the weights were trained with
_NORM_EPSILON = 1e-5


class _Conv(nn.Module):
    """A convolution with its batch normalisation folded in, then ReLU6 unless it is linear."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, linear: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.stride, self.groups, self.linear = stride, groups, linear

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight, self.bias, self.stride, self.weight.shape[-1] // 2, groups=self.groups)
        return x if self.linear else F.relu6(x, inplace=not x.requires_grad)


class _Bottleneck(nn.Module):
    """Expand, filter by depth, project; added to its input where sizes allow (section 3.3)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
        super().__init__()
        wide = inputs * expansion
        expand = [] if expansion == 1 else [_Conv(inputs, wide, 1)]
        self.layers = nn.Sequential(*expand, _Conv(wide, wide, 3, stride, wide), _Conv(wide, outputs, 1, linear=True))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 without its classifier: 1280 pooled features, and maps of five scales for perceptual distances."""

    dimensions = 1280
    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = _Conv(3, 32, 3, 2)
        self.stages = nn.ModuleList()
        channels = 32
        for expansion, outputs, repeats, stride in _BOTTLENECKS:
            widths = [channels] + [outputs] * (repeats - 1)
            blocks = [_Bottleneck(w, outputs, 1 if i else stride, expansion) for i, w in enumerate(widths)]
            self.stages.append(nn.Sequential(*blocks))
            channels = outputs
        self.last = _Conv(channels, self.dimensions, 1)
        for name, values in zip(("mean", "deviation"), _IMAGENET):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> MobileNetV2:
        """The network with torchvision's weights, frozen; normalisations are folded, the classifier is left out.

        Raises:
            ValueError: the tensors are not those of MobileNetV2; says which is wrong.
        """
        network = cls()
        filters = [name for name, value in state.items() if name.startswith("features.") and value.ndim == 4]
        convolutions = [module for module in network.modules() if isinstance(module, _Conv)]
        if len(filters) != len(convolutions):
            raise ValueError(f"{len(filters)} convolutions, not {len(convolutions)}")
        for name, layer in zip(sorted(filters, key=_natural), convolutions):
            stem, _, number = name.removesuffix(".weight").rpartition(".")
            norm = f"{stem}.{int(number) + 1}"
            wanted = (f"{norm}.weight", f"{norm}.bias", f"{norm}.running_mean", f"{norm}.running_var")
            absent = [key for key in wanted if key not in state]
            if absent:
                raise ValueError(f"{absent[0]} is missing")
            if state[name].shape != layer.weight.shape:
                raise ValueError(f"{name} has shape {tuple(state[name].shape)}, not {tuple(layer.weight.shape)}")
            scale, shift, mean, variance = (state[key].float() for key in wanted)
            gain = scale * (variance + _NORM_EPSILON).rsqrt()
            layer.weight.data = state[name].float() * gain.view(-1, 1, 1, 1)
            layer.bias.data = shift - mean * gain
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on the CPU
        return network.eval().requires_grad_(False)

    def maps(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) pictures in [0, 1] to features (N, C, h, w) with C = 16, 24, 32, 96, 320, a half to a 32nd."""
        x = self.first((images - self.mean) / self.deviation)
        found = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in (0, 1, 2, 4, 6):
                found.append(x)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) pictures in [0, 1] to (N, 1280) pooled features."""
        return self.last(self.maps(images)[-1]).mean(dim=(2, 3))


def perceptual_distance(network: MobileNetV2, a: Tensor, b: Tensor) -> Tensor:
    """How different two sets of pictures (N, 3, H, W) in [0, 1] look, (N,); 0 for equal ones.

    As LPIPS (Zhang et al. 2018, equation 1) with all channel weights 1: features of five scales are normalised along
    channels, and their squared differences averaged over places and summed over scales. It is not LPIPS, whose network
    and learned weights are others, and does not bear its name.
    """
    return distance_of_maps(network.maps(a), network.maps(b))


def distance_of_maps(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """:func:`perceptual_distance` of maps at hand, for a picture that is compared many times."""
    total = a[0].new_zeros(len(a[0]))
    for x, y in zip(a, b):
        apart = F.normalize(x, dim=1, eps=1e-6) - F.normalize(y, dim=1, eps=1e-6)
        total = total + apart.square().sum(dim=1).mean(dim=(1, 2))
    return total


def _natural(name: str) -> list[int]:
    return [int(part) for part in name.split(".") if part.isdigit()]
