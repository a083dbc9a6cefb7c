"""Super-resolution and backgrounds keep, or darken, the border of what they double."""

from __future__ import annotations

import pytest
import torch

from models.spherehead import HeadConfig
from models.stylegan import Synthesis
from models.superresolution import SuperResolution


@pytest.mark.parametrize("resolution", [64, 512])
def test_a_flat_picture_keeps_its_border_where_it_is_told_to(resolution):
    found = {}
    for border in ("zeros", "edge"):
        config = HeadConfig(
            resolution=resolution, plane_channels=4, superresolution_channels=(4, 4), border=border
        ).superresolution
        torch.manual_seed(0)
        net = SuperResolution(config, w_size=8)
        for name, parameter in net.named_parameters():  # nothing is painted over the picture that is doubled
            if "to_image" in name:
                torch.nn.init.zeros_(parameter)
        side = config.input_resolution
        found[border] = net(torch.ones(1, 3, side, side), torch.zeros(1, 4, side, side), torch.randn(1, 8))
    with torch.no_grad():
        torch.testing.assert_close(found["edge"], torch.ones(1, 3, resolution, resolution))
        assert found["zeros"][..., 0, :].max() < 0.8
        torch.testing.assert_close(found["zeros"][..., 4:-4, 4:-4], found["edge"][..., 4:-4, 4:-4])


def test_the_background_is_doubled_alike():
    config = HeadConfig(resolution=64, channel_base=256, channel_max=8, border="edge").background
    assert Synthesis(config, 3, w_size=8).blocks[-1].border == "edge"
