import numpy as np
import pytest
import torch
from scipy import ndimage

from models.render.holes import holes, outside


@pytest.mark.parametrize("seed", range(6))
def test_holes_of_blobs_are_those_scipy_fills(seed):
    """Smooth random blobs, as silhouettes are, of a batch of different ones at once."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(4, 48, 48)), (0, 4, 4))
    covered = noise > -0.2 * noise.std()
    expected = np.stack([ndimage.binary_fill_holes(one) & ~one for one in covered])
    found = holes(torch.from_numpy(covered).float().unsqueeze(1)).squeeze(1)
    assert expected.any()
    np.testing.assert_array_equal(found.numpy() > 0, expected)


def test_a_ring_has_its_inside_and_a_horseshoe_none():
    y, x = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(32) - 15.5, indexing="ij")
    radius = (x.square() + y.square()).sqrt()
    ring = ((radius > 6) & (radius < 10)).float()
    assert torch.equal(holes(ring[None, None])[0, 0] > 0, radius <= 6)
    open_ring = torch.where((x.abs() < 2) & (y > 0), 0.0, ring)
    assert holes(open_ring[None, None]).sum() == 0


def test_nothing_covered_is_all_outside_and_all_covered_none():
    assert outside(torch.zeros(1, 1, 5, 7, dtype=torch.bool)).all()
    assert not outside(torch.ones(1, 1, 5, 7, dtype=torch.bool)).any()
