"""StyleGAN2's mapping network: a latent and a label to a style (Karras et al. 2020, with the settings of EG3D)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from models.config import Config
from models.stylegan import EqualLinear


class MappingConfig(Config):
    """The mapping network: latent and label to the style w."""

    z_size: int = 512  # EG3D
    w_size: int = 512  # EG3D
    layers: int = 2  # EG3D; StyleGAN2 has 8
    lr_multiplier: float = 0.01  # StyleGAN2
    label_scale: float = 1.0  # EG3D's c_scale
    average_decay: float = 0.998  # EG3D's w_avg_beta


class Mapping(nn.Module):
    """Latent z and label c to a style w, with a running average for truncation.

    Args:
        config: sizes.
        label_size: length of c, 0 for none.
        w_count: how many copies of w the synthesis takes; None returns (N, w_size).
        linear: no activation on the last layer.
        keep_average: track the average of w, which truncation needs.
    """

    def __init__(
        self,
        config: MappingConfig,
        label_size: int,
        w_count: int | None = None,
        linear: bool = False,
        keep_average: bool = True,
    ):
        super().__init__()
        if config.z_size == 0 and label_size == 0:
            raise ValueError("a mapping network needs a latent or a label")
        self.config, self.w_count = config, w_count
        self.embed = EqualLinear(label_size, config.w_size) if label_size else None
        first = config.z_size + (config.w_size if label_size else 0)
        widths = [first] + [config.w_size] * config.layers
        self.layers = nn.ModuleList(
            EqualLinear(i, o, linear and n == config.layers - 1, lr_multiplier=config.lr_multiplier)
            for n, (i, o) in enumerate(pairwise(widths))
        )
        self.average: Tensor | None
        self.register_buffer("average", torch.zeros(config.w_size) if keep_average else None)

    def forward(
        self,
        z: Tensor | None,
        label: Tensor | None,
        truncation: float = 1.0,
        truncation_cutoff: int | None = None,
        update_average: bool = False,
    ) -> Tensor:
        """(N, z_size) latents and (N, label_size) labels to (N, w_count, w_size) styles, or (N, w_size).

        ``truncation`` pulls the first ``truncation_cutoff`` styles (all if None) towards the average.
        """
        parts = [] if z is None or self.config.z_size == 0 else [normalise_second_moment(z)]
        if self.embed is not None:
            if label is None:
                raise ValueError("this mapping network is conditioned: it needs a label")
            parts.append(normalise_second_moment(self.embed(label * self.config.label_scale)))
        w = torch.cat(parts, dim=1)
        for layer in self.layers:
            w = layer(w)
        if update_average and self.average is not None:
            mean = w.detach().mean(0).to(self.average.dtype)  # half of it under autocast
            self.average.copy_(mean.lerp(self.average, self.config.average_decay))
        if self.w_count is not None:
            w = w.unsqueeze(1).repeat(1, self.w_count, 1)
        if truncation != 1.0:
            if self.average is None:
                raise ValueError("this mapping network keeps no average to truncate towards")
            if truncation_cutoff is None or self.w_count is None:
                return self.average.lerp(w, truncation)
            w = torch.cat([self.average.lerp(w[:, :truncation_cutoff], truncation), w[:, truncation_cutoff:]], dim=1)
        return w


def normalise_second_moment(x: Tensor) -> Tensor:
    """Scale each row of (N, C) to a mean square of 1."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
