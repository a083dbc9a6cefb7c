"""Fields in pieces, and in half precision: the same picture, with less memory or fewer digits."""

import pytest
import torch

from benchmarks.memory import peak_bytes
from models import pointwise
from models.pointwise import in_pieces
from models.portrait import PortraitGenerator, Rays
from models.portrait_cameras import PORTRAIT_VIEW, view_label
from tests.models.test_portrait import TINY, latents


def test_pieces_make_the_whole():
    x, y = torch.randn(2, 5001, 3), torch.randn(2, 5001, 4)
    seen = []

    def field(a, b):
        seen.append(a.shape[1])
        return torch.cat([a, b.sin()], dim=-1)

    with torch.no_grad():
        found = in_pieces(field, x, y)
    assert torch.equal(found, torch.cat([x, y.sin()], dim=-1))
    assert max(seen) * 2 <= pointwise.PIECE
    assert sum(seen) == 5001
    seen.clear()
    in_pieces(field, x, y)
    assert seen == [5001]  # with gradients at once


@pytest.fixture
def pictures(monkeypatch):
    """Draws the same character by a generator of some precision, fields in pieces of some size."""

    def draw(precision="float32", piece=64, gradients=False):
        monkeypatch.setattr(pointwise, "PIECE", piece)
        torch.manual_seed(0)
        net = PortraitGenerator(TINY.model_copy(update={"precision": precision}))
        torch.nn.init.normal_(net.expression.last.weight, std=0.02)
        points, directions, depths = net.sample_rays(view_label(PORTRAIT_VIEW, *torch.zeros(2, 1)), PORTRAIT_VIEW, 16)
        with torch.set_grad_enabled(gradients):
            styles = net.styles(latents(1))
            rays = Rays(points, directions, depths)
            return net.shade(rays, styles, PORTRAIT_VIEW.far), lambda: net.shade(rays, styles, PORTRAIT_VIEW.far)

    return draw


def test_a_picture_is_the_same_in_pieces_and_holds_less(pictures):
    whole, shade_whole = pictures(piece=1 << 20)
    held = []
    with torch.no_grad():
        held.append(peak_bytes(shade_whole))
        parts, shade_parts = pictures(piece=64)
        held.append(peak_bytes(shade_parts))
    torch.testing.assert_close(parts.image, whole.image, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(parts.depth, whole.depth, atol=1e-6, rtol=1e-5)
    assert held[1] < 0.8 * held[0]


def test_half_precision_differs_by_little_and_only_without_gradients(pictures):
    plain, half = pictures()[0], pictures("bfloat16")[0]
    apart = (plain.image - half.image).abs()
    assert 0 < apart.max() < 0.05
    assert apart.square().mean().sqrt() < 0.01
    assert half.image.dtype == torch.float32
    assert torch.equal(pictures("bfloat16", gradients=True)[0].image, pictures(gradients=True)[0].image)
