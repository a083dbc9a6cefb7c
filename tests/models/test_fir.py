"""FIR resampling against scipy's filters, and the properties that resampling must have."""

import numpy as np
import pytest
import torch
from scipy import signal

from models import fir

KERNEL = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64.0


def picture(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("padding", [1, 2])
def test_low_pass_is_a_convolution_with_the_binomial_kernel(padding):
    x = picture(2, 3, 9, 9)
    expected = signal.convolve2d(np.pad(x[1, 2].numpy(), padding), KERNEL, mode="valid")
    np.testing.assert_allclose(fir.low_pass(x, padding)[1, 2].numpy(), expected, atol=1e-12)


def test_double_inserts_zeros_and_filters():
    x = picture(1, 2, 6, 6)
    stuffed = np.zeros((12, 12))
    stuffed[::2, ::2] = x[0, 1].numpy()
    expected = signal.convolve2d(np.pad(stuffed, ((2, 1), (2, 1))), 4 * KERNEL, mode="valid")
    np.testing.assert_allclose(fir.double(x)[0, 1].numpy(), expected, atol=1e-12)
    line = signal.upfirdn([1, 3, 3, 1] / np.float64(4), x[0, 1, 3].numpy(), up=2)[1:13]
    rows = signal.upfirdn([1, 3, 3, 1] / np.float64(4), np.eye(6), up=2, axis=0)[1:13]
    np.testing.assert_allclose(fir.double(x)[0, 1].numpy(), rows @ x[0, 1].numpy() @ rows.T, atol=1e-12)
    np.testing.assert_allclose(rows @ x[0, 1, 3].numpy(), line, atol=1e-12)
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(fir.double(x, "edge")[inner], fir.double(x)[inner])


def test_halve_filters_and_drops():
    x = picture(1, 2, 8, 8)
    rows = signal.upfirdn([1, 3, 3, 1] / np.float64(8), np.eye(8), down=1, axis=0)[2:10:2]
    np.testing.assert_allclose(fir.halve(x)[0, 0].numpy(), rows @ x[0, 0].numpy() @ rows.T, atol=1e-12)


def test_a_flat_picture_stays_flat_inside():
    flat = torch.ones(1, 2, 16, 16)
    torch.testing.assert_close(fir.double(flat)[..., 1:-1, 1:-1], torch.ones(1, 2, 30, 30))
    torch.testing.assert_close(fir.double(flat, "edge"), torch.ones(1, 2, 32, 32))
    torch.testing.assert_close(fir.halve(flat)[..., 1:-1, 1:-1], torch.ones(1, 2, 6, 6))
    torch.testing.assert_close(fir.gaussian_blur(flat, 1.0)[..., 4:-4, 4:-4], torch.ones(1, 2, 8, 8))


def test_blur_spreads_a_point_symmetrically_and_vanishes_below_a_third_of_a_pixel():
    point = torch.zeros(1, 1, 17, 17)
    point[..., 8, 8] = 1
    blurred = fir.gaussian_blur(point, 2.0)[0, 0]
    torch.testing.assert_close(blurred, blurred.T)
    torch.testing.assert_close(blurred.sum(), torch.tensor(1.0))
    torch.testing.assert_close(blurred[8, 10] / blurred[8, 8], torch.tensor(0.5))  # one sigma: 2 ** -1
    assert fir.gaussian_blur(point, 0.3) is point


def test_resize_keeps_the_mean_and_does_nothing_at_the_same_size():
    x = picture(1, 3, 16, 16)
    assert fir.resize(x, 16) is x
    torch.testing.assert_close(fir.resize(x, 4).mean(), x.mean(), atol=0.05, rtol=0)


def test_a_kernel_first_made_in_inference_serves_training():
    fir._cached.cache_clear()
    with torch.inference_mode():
        fir.double(torch.ones(1, 1, 4, 4))
    x = torch.ones(1, 1, 4, 4, requires_grad=True)
    fir.double(x).sum().backward()
    assert torch.isfinite(x.grad).all()
