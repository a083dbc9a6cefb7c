"""Super-resolution: a feature image and its first three channels as a picture, to the final picture (EG3D).

Two synthesis blocks driven by the last style alone. From 128 pixels to 512 both double; to 256 or less only the second
does, from half the final size. No noise is added, as EG3D trains it.
"""

from __future__ import annotations

from torch import Tensor, nn

from models import fir
from models.config import Config
from models.stylegan import Precision, SynthesisBlock


class SuperResolutionConfig(Config):
    """Sizes of the two blocks. EG3D: (256, 128) channels for 512 pixels, (128, 64) for 256 and 128."""

    resolution: int = 512
    inputs: int = 32
    channels: tuple[int, int] = (256, 128)
    precision: Precision = "float16"  # EG3D's sr_num_fp16_res = 4: both blocks
    clamp: float = 256.0
    border: fir.Border = "zeros"  # EG3D: the picture darkens towards its border as it is doubled

    @property
    def doublings(self) -> int:
        """How often the picture doubles."""
        return 2 if self.resolution >= 512 else 1

    @property
    def input_resolution(self) -> int:
        """Side of the picture that the first block takes; others are resized to it."""
        return self.resolution >> self.doublings


class SuperResolution(nn.Module):
    """Two blocks, see the module's text."""

    def __init__(self, config: SuperResolutionConfig, w_size: int):
        super().__init__()
        self.config = config
        first, second = config.channels
        middle = config.resolution // 2
        twice = config.doublings == 2
        how = config.precision, config.clamp, config.border
        self.block0 = SynthesisBlock(config.inputs, first, 3, w_size, middle, twice, *how)
        self.block1 = SynthesisBlock(first, second, 3, w_size, config.resolution, True, *how)
        for name, parameter in self.named_parameters():  # never used, and kept so that the network is EG3D's
            if name.endswith("noise_strength"):
                parameter.requires_grad_(False)

    def forward(self, picture: Tensor, feature: Tensor, w: Tensor, precision: Precision | None = None) -> Tensor:
        """(N, 3, h, h) picture, (N, inputs, h, h) features and (N, w_size) style to (N, 3, resolution, resolution).

        ``precision`` replaces the configuration's.
        """
        size = self.config.input_resolution
        styles = [w, w, w]
        feature, picture = fir.resize(feature, size), fir.resize(picture, size)
        x, image = self.block0(feature, picture, styles, "none", precision=precision)
        return self.block1(x, image, styles, "none", precision=precision)[1]
