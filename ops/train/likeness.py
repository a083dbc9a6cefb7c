"""How alike two sets of pictures are, as a loss: features to compare by, and identity where a recogniser is given.

Each term bears the name of its network. dlib has no gradient and is not used here: without ArcFace's weights, the
identity term is off.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

from models import fir
from models.arcface import SIDE, ArcFaceIR50
from models.features import perceptual_distance
from models.lpips import Lpips, Net
from ops.evaluate.features import load_features
from ops.evaluate.identity import ARCFACE_CHIP, read_tensors
from ops.evaluate.perceptual import FILES
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.weights import EMBEDDED, require

T = TypeVar("T")
LARGEST = 256  # pixels; larger pictures are compared at this size, as StyleGAN2's projector does


class LikenessParams(Params):
    """Networks that compare. LPIPS and ArcFace need weights of the user's (`lineament weights`)."""

    perceptual: Literal["lpips_vgg", "lpips_alex", "mobilenetv2", "none"] = "lpips_alex"  # A.2.1; e4e: AlexNet
    identity: Literal["arcface_ir50", "none"] = "arcface_ir50"  # A.2.1


class Likeness(nn.Module):
    """The comparing networks, frozen.

    Args:
        params: which.
        weights: folder of the embedded weights.

    Raises:
        LineamentError: weights are missing, damaged or others'.
    """

    def __init__(self, params: LikenessParams, weights: Path = EMBEDDED) -> None:
        super().__init__()
        self.params = params
        self._distance: Callable[[Tensor, Tensor], Tensor] | None = None
        if params.perceptual == "mobilenetv2":
            mobile = load_features(weights).network
            self._distance = lambda a, b: perceptual_distance(mobile, (a + 1) / 2, (b + 1) / 2)
            self.features: nn.Module = mobile
        elif params.perceptual != "none":
            net: Net = "vgg" if params.perceptual == "lpips_vgg" else "alex"
            files = [read_tensors(require(name, weights)) for name in FILES[net]]
            self.features = self._distance = _checked(lambda: Lpips.from_state(net, *files), params.perceptual)
        self.recogniser: ArcFaceIR50 | None = None
        if params.identity == "arcface_ir50":
            state = read_tensors(require("arcface_ir50", weights))
            self.recogniser = _checked(lambda: ArcFaceIR50.from_state(state), params.identity)

    def apart(self, a: Tensor, b: Tensor) -> Tensor | None:
        """Mean perceptual distance of pairs of pictures (N, 3, H, W) in [-1, 1]; None where it is off."""
        if self._distance is None:
            return None
        side = min(LARGEST, a.shape[-1])
        return self._distance(fir.resize(a, side), fir.resize(b, side)).mean()

    def strangeness(self, a: Tensor, b: Tensor) -> Tensor | None:
        """1 minus the mean cosine of identities in pairs of aligned crops; None where no recogniser is given."""
        if self.recogniser is None:
            return None
        return 1 - (self.recogniser(chip(a)) * self.recogniser(chip(b))).sum(1).mean()


def chip(images: Tensor) -> Tensor:
    """Aligned crops (N, 3, H, W) to the part that ArcFace looks at, (N, 3, 112, 112)."""
    at = ARCFACE_CHIP
    theta = images.new_tensor([[at.side, 0, 2 * at.left + at.side - 1], [0, at.side, 2 * at.top + at.side - 1]])
    grid = F.affine_grid(theta.expand(len(images), 2, 3), [len(images), 3, SIDE, SIDE], align_corners=False)
    return F.grid_sample(fir.resize(images, LARGEST), grid, padding_mode="border", align_corners=False)


def _checked(build: Callable[[], T], name: str) -> T:
    try:
        return build()
    except ValueError as error:
        raise LineamentError(f"the weights of {name} are others': {error}.") from None
