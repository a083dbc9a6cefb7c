"""The three fields of the portrait generator: manifolds M, radiance phi, expression deformation D^e.

Points are in world units in the *head frame*: the origin is the centre of the neutral head, y up, the face towards
+z, and the face camera stands at distance 1. Inside the networks coordinates are multiplied by ``SCALE``.

Traps of the public code avoided here:
* its deformer returns coordinates that are already scaled and that are then scaled again by the next network, while
  the deformation itself is added unscaled. Here every field takes and gives world units and scales once, inside.
* four of the seven inputs of its deformer are always zero and four of its seven outputs are never read. Here three
  go in and three come out, as in the paper's Eq. 6: 1,028 parameters fewer, none of which could learn.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import Config
from models.pointwise import in_pieces
from models.siren import Film, FilmLayer, FilmMapping, sine_init

SCALE = 2 / 0.24  # microsoft/GRAM: the box of side 0.24 around the face becomes [-1, 1]
_FIELD_GAIN = 10.0  # microsoft/GRAM: the field starts as ten times the (scaled) distance from its centre


class ManifoldConfig(Config):
    """The manifold predictor M and how rays are searched."""

    width: int = 128  # microsoft/GRAM configs.py, FFHQ_default
    centre: tuple[float, float, float] = (0.0, 0.0, -1.5)  # microsoft/GRAM; scaled units
    count: int = 24  # paper, Section 4; microsoft/GRAM
    level_start: float = 23.0  # microsoft/GRAM: outermost
    level_end: float = 8.0  # microsoft/GRAM: innermost
    samples: int = 64  # microsoft/GRAM: field samples on each ray
    thickness: float = 0.04  # microsoft/GRAM: alpha = 1 - exp(-thickness * softplus(sigma))


class RadianceConfig(Config):
    """The radiance generator phi."""

    width: int = 256  # microsoft/GRAM
    layers: int = 8  # microsoft/GRAM
    mapping_width: int = 256  # microsoft/GRAM
    features: int = 32  # YueWuHKUST/AniPortraitGAN curriculums.py: what the super-resolution reads


class ExpressionConfig(Config):
    """The expression deformation D^e; paper Figure 10."""

    width: int = 128  # AniPortraitGAN generators/siren.py
    layers: int = 3  # paper, Figure 10
    mapping_width: int = 128  # AniPortraitGAN generators/siren.py
    # What the codes are multiplied by. 1 for the paper's 3DMM, whose codes all deviate by about one; anny's identities
    # deviate thirty times as much as its expressions, which the mapping network would not hear beside them.
    identity_gain: float = 1.0
    expression_gain: float = 1.0


class ManifoldField(nn.Module):
    """The scalar field s of paper Eq. 1. It starts as about ten times the scaled distance from its centre.

    The start follows the geometric initialisation of implicit surfaces (SAL, Atzmon & Lipman): with hidden weights
    of variance 2 / outputs and a constant last layer, a ReLU network is close to a norm.
    """

    centre: Tensor

    def __init__(self, config: ManifoldConfig):
        super().__init__()
        self.register_buffer("centre", torch.tensor(config.centre), persistent=False)
        layers: list[nn.Module] = []
        for inputs in (3, config.width, config.width):
            linear = nn.Linear(inputs, config.width)
            nn.init.normal_(linear.weight, 0, math.sqrt(2 / config.width))
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        last = nn.Linear(config.width, 1)
        nn.init.constant_(last.weight, _FIELD_GAIN * math.sqrt(math.pi / config.width))
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, points: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """(..., 3) canonical points to (...) values; ``dtype`` is that of the layers amid, the points' own if None."""
        first, *amid, last = self.layers.children()
        x = first(points * SCALE - self.centre).to(dtype or points.dtype)
        for layer in amid:
            x = _linear(layer, x) if isinstance(layer, nn.Linear) else layer(x)
        return last(x.to(points.dtype)).squeeze(-1)


class Radiance(NamedTuple):
    """Colour (N, P, 3) in (0, 1), density (N, P) before the softplus, and (N, P, F) features or None."""

    colour: Tensor
    density: Tensor
    features: Tensor | None


def _linear(layer: nn.Linear, x: Tensor, count: int | None = None) -> Tensor:
    """The first ``count`` outputs of a linear layer, without computing the others, in the precision of ``x``."""
    return F.linear(x, layer.weight[:count].to(x.dtype), layer.bias[:count].to(x.dtype))


class RadianceField(nn.Module):
    """The radiance generator of paper Eq. 2: FiLM-SIREN with skip heads.

    Density, colour and features are sums over what the layers from the second on say of them; the last colour is
    read behind one more FiLM layer that also sees the viewing direction.
    """

    def __init__(self, latent: int, config: RadianceConfig):
        super().__init__()
        width, last = config.width, config.layers - 1
        self.mapping = FilmMapping(latent, config.mapping_width, config.layers + 1, width)
        self.layers = nn.ModuleList(FilmLayer(width if i else 3, width, first=i == 0) for i in range(config.layers))
        self.view_layer = FilmLayer(width + 3, width)
        # Heads of one layer side by side: density 1, colour 3, features F. The last layer's colour is apart.
        self.heads = nn.ModuleList(nn.Linear(width, 4 + config.features) for _ in range(last - 1))
        self.last_head = nn.Linear(width, 1 + config.features)
        self.last_colour = nn.Linear(width, 3)
        for head in (*self.heads, self.last_head, self.last_colour):
            sine_init(head)

    def forward(
        self,
        points: Tensor,
        directions: Tensor,
        film: Film,
        features: bool = False,
        dtype: torch.dtype | None = None,
    ) -> Radiance:
        """Radiance at canonical points.

        Args:
            points: (N, P, 3) world units.
            directions: (N, P, 3) unit viewing directions.
            film: from ``self.mapping``.
            features: whether to compute the features too.
            dtype: of the layers between the first and the heads' sums; the points' own if None.
        """

        def said(some: Tensor, seen_along: Tensor) -> Tensor:
            return self._said(some, seen_along, film, features, dtype or points.dtype)

        total = in_pieces(said, points, directions)
        return Radiance(total[..., 1:4].sigmoid(), total[..., 0], total[..., 4:] if features else None)

    def _said(self, points: Tensor, directions: Tensor, film: Film, features: bool, dtype: torch.dtype) -> Tensor:
        """What the heads say together: (N, P, 4 or 4 + F)."""
        x = self.layers[0](points * SCALE, *film.layer(0)).to(dtype)
        total = points.new_zeros(())
        for i, head in enumerate(self.heads, start=1):
            x = self.layers[i](x, *film.layer(i))
            total = total + _linear(head, x, None if features else 4)  # type: ignore[arg-type]
        i = len(self.layers) - 1
        x = self.layers[i](x, *film.layer(i))
        rest = _linear(self.last_head, x, None if features else 1)
        viewed = self.view_layer(torch.cat([directions.to(dtype), x], dim=-1), *film.layer(i + 1))
        return total + torch.cat([rest[..., :1], _linear(self.last_colour, viewed), rest[..., 1:]], dim=-1)


class ExpressionField(nn.Module):
    """The expression deformation of paper Eq. 6. The last layer is zero at the start, so nothing moves."""

    def __init__(self, latent: int, config: ExpressionConfig):
        super().__init__()
        self.mapping = FilmMapping(latent, config.mapping_width, config.layers, config.width)
        self.layers = nn.ModuleList(
            FilmLayer(config.width if i else 3, config.width, first=i == 0) for i in range(config.layers)
        )
        self.last = nn.Linear(config.width, 3)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, points: Tensor, film: Film, dtype: torch.dtype | None = None) -> Tensor:
        """(N, P, 3) points of the neutral pose to (N, P, 3) displacements that take the expression away; world units.

        ``dtype`` is that of the layers amid, the points' own if None.

        The network speaks in scaled units (its answer is divided by ``SCALE``), so that its output layer learns at
        the pace of its input layer.
        """
        x = points * SCALE
        for i, layer in enumerate(self.layers):
            x = layer(x, *film.layer(i))
            if i == 0:
                x = x.to(dtype or points.dtype)
        return self.last(x.to(points.dtype)) / SCALE
