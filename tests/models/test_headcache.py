"""A cached head shows what the generator shows, from fewer look-ups."""

import pytest
import torch

from benchmarks.toyhead import make_solid
from models.headcache import HeadCache
from models.render.occupancy import Occupancy, OccupancyConfig
from models.render.volume import RenderConfig
from models.spherehead import HeadGenerator
from models.stylegan import working_dtype
from tests.models.test_spherehead import VARIANTS, labels, smoke

RENDER = RenderConfig(coarse=24, fine=24)
GRID = OccupancyConfig(resolution=48)


def head(variant: str, **changes: object) -> tuple[HeadGenerator, torch.Tensor]:
    torch.manual_seed(3)
    net = HeadGenerator(smoke(variant, render=RENDER, **changes)).eval()
    return make_solid(net), net.mapping(torch.randn(1, 32), labels(0.0)).detach()


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return (10 * torch.log10(4 / (a - b).square().mean())).item()


@pytest.mark.parametrize("variant", VARIANTS)
def test_frames_are_those_of_the_generator(variant):
    net, ws = head(variant)
    cache = HeadCache(net, ws, occupancy=GRID)
    for angle in (0.0, 70.0, 180.0):
        with torch.no_grad():
            whole = net.synthesise(ws, labels(angle), noise="const")
        quick = cache.view(labels(angle))
        assert psnr(quick.image, whole.image) > 45
        assert psnr(quick.raw, whole.raw) > 45
        solid = whole.feature.new_ones(1) if whole.mask is None else whole.mask
        if whole.mask is not None:
            assert (quick.mask - whole.mask).abs().max() < 5e-3
            assert whole.mask.max() > 0.95 > 0.05 > whole.mask.min()  # there is a ball, and empty space
        near = (solid > 0.5).expand_as(whole.depth) & (whole.depth < 3)
        assert (quick.depth - whole.depth)[near].abs().max() < 2e-3


def test_without_a_grid_the_cache_is_exact():
    net, ws = head("spherehead")
    with torch.no_grad():
        whole = net.synthesise(ws, labels(40.0), noise="const")
    quick = HeadCache(net, ws, occupancy=None).view(labels(40.0))
    assert torch.equal(quick.image, whole.image)
    assert torch.equal(quick.parsing, whole.parsing)


@pytest.mark.parametrize("precision", ["bfloat16", "half"])
def test_super_resolution_in_half_precision_shows_the_same(precision):
    net, ws = head("spherehead")
    with torch.no_grad():
        whole = net.synthesise(ws, labels(40.0), noise="const")
    quick = HeadCache(net, ws, occupancy=None, precision=precision).view(labels(40.0))
    assert psnr(quick.image / whole.image.std() / 2, whole.image / whole.image.std() / 2) > 45  # as real ones vary
    assert quick.image.dtype == torch.float32
    assert torch.equal(quick.raw, whole.raw)  # only super-resolution
    half = working_dtype(precision, net.decoder.out.weight) != torch.float32
    assert torch.equal(quick.image, whole.image) != half
    with torch.no_grad():
        still = net.synthesise(ws, labels(40.0), noise="const", precision=precision)
    assert torch.equal(still.image, quick.image)


def test_half_precision_is_what_the_device_computes_faster(monkeypatch):
    weight = torch.zeros(1)
    for able, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda able=able: able)
        assert working_dtype("half", weight) == dtype
    assert working_dtype("half", weight.to("meta")) == torch.float16


def test_most_samples_are_left_out():
    net, ws = head("spherehead")
    counts = []
    field = net.field

    def counting(planes, sphere="fused", fast=True):
        inner = field(planes, sphere, fast)

        def ask(points):
            counts.append(points.shape[1])
            return inner(points)

        return ask

    net.field = counting
    cache = HeadCache(net, ws, occupancy=GRID)
    assert 0.02 < cache.occupancy.filled < 0.5
    counts.clear()
    cache.view(labels(30.0))
    rays, samples = 16 * 16, RENDER.coarse + RENDER.fine
    assert 0 < sum(counts) < 0.5 * rays * samples


def cloud(points):
    """A thin film at x = 0 (thinner than a ray's steps), solid behind z < -0.2."""
    x, z = points[..., 0], points[..., 2]
    density = torch.where(x.abs() < 0.03, 3.0, -20.0) + torch.where(z < -0.2, 40.0, 0.0)
    return points.sin(), density


def test_the_grid_never_calls_a_full_cell_empty():
    grid = Occupancy(cloud, RENDER, 1.0, OccupancyConfig(resolution=40), "cpu")
    points = torch.rand(20_000, 3) * 1.5 - 0.75
    _, density = cloud(points[None])
    _, full, least = grid.look(points)
    assert full[density[0] > -5].all()
    assert not full.all()
    assert (least <= torch.nn.functional.softplus(density[0] - 1) + 1e-6).all()


def test_beyond_the_grid_nothing_is_left_out():
    grid = Occupancy(lambda p: (p, p[..., 0] * 0 - 30), RENDER, 1.0, OccupancyConfig(resolution=8), "cpu")
    _, full, least = grid.look(torch.tensor([[0.9, 0.0, 0.0], [0.1, 0.0, 0.0]]))
    assert full.tolist() == [True, False]
    assert least[0] == 0


def test_an_empty_scene_shows_the_background():
    net, ws = head("spherehead")
    with torch.no_grad():
        net.decoder.out.bias[0] = -200
        whole = net.synthesise(ws, labels(0.0), noise="const")
    quick = HeadCache(net, ws, occupancy=GRID).view(labels(0.0))
    assert torch.allclose(quick.image, whole.image, atol=1e-5)


def test_one_identity_at_a_time():
    net, ws = head("dual_sphere")
    with pytest.raises(ValueError, match="one identity, not 2"):
        HeadCache(net, ws.repeat(2, 1, 1))
