"""The head generators: fast forms against plain ones, at the sizes of SphereHead at 512 pixels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.harness import Row, alternate, at_least, at_most, speedup
from benchmarks.memory import peak_bytes
from benchmarks.toyhead import make_solid
from models import camera
from models.discriminators import Discriminator, Shown
from models.headcache import HeadCache
from models.mapping import MappingConfig
from models.planes import PlaneConfig, PlaneField
from models.render import volume
from models.render.occupancy import render_occupied
from models.spherehead import HeadConfig, HeadGenerator
from models.stylegan import Precision

POINTS = 196_608  # 64 x 64 rays of 48 samples
MIB = 2**20
DEVIATION = 0.5  # of real pictures in [-1, 1]
PRECISIONS: tuple[Precision, ...] = ("half", "float32")  # of super-resolution in videos: lineament's default and before
# Seconds of the public SphereHead code per picture on two cores (float32, measured elsewhere on such a machine).
PUBLIC_FORWARD = {64: 3.88, 128: 8.46}


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _settled(call: Callable[..., object], *arguments: object) -> Callable[[], object]:
    """The call with its arguments, waiting for the accelerator to finish."""

    def wait() -> object:
        result = call(*arguments)
        if _device() != "cpu":
            torch.cuda.synchronize()
        return result

    return wait


def _mebibytes(call: Callable[..., object], *arguments: object) -> float:
    return peak_bytes(partial(call, *arguments), _device()) / MIB


def _view(azimuth: float = 0.4) -> Tensor:
    angle = torch.tensor([azimuth])
    return camera.pack_label(camera.pose_on_sphere(angle, 0 * angle), camera.intrinsics()).to(_device())


def _psnr(picture: Tensor, reference: Tensor) -> float:
    """Decibels, at most 120; pictures of random weights exceed [-1, 1] and are scaled to what real ones vary."""
    error = ((picture - reference) * (DEVIATION / reference.std())).square().mean().item()
    return min(10 * math.log10(4 / max(error, 1e-12)), 120)


def _points() -> Tensor:
    origin, direction = camera.rays(_view(), 64)
    near, far = (torch.full(origin.shape[:2], depth, device=_device()) for depth in (2.25, 3.3))
    depth = volume.stratified_depths(near, far, 48, jitter=True)
    return (origin.unsqueeze(2) + depth.unsqueeze(-1) * direction.unsqueeze(2)).flatten(1, 2)


def query_rows() -> list[Row]:
    """Dual-sphere look-ups: 196,608 points, 32 channels, planes of 256 x 256."""
    config = PlaneConfig()
    planes = torch.randn(1, config.planes * config.channels, 256, 256, device=_device())
    points = _points()
    weight = torch.randn(1, POINTS, config.channels, device=_device())

    @torch.no_grad()
    def forward(fast: bool) -> Tensor:
        return PlaneField(planes, config, fast).query(points)

    def backward(fast: bool, with_points: bool = True) -> tuple[Tensor, ...]:
        p, x = planes.clone().requires_grad_(), points.clone().requires_grad_(with_points)
        wanted = (p, x) if with_points else (p,)
        return torch.autograd.grad((PlaneField(p, config, fast).query(x) * weight).sum(), wanted)

    rows = []
    calls: list[tuple[str, Callable[[bool], object], float]] = [
        ("forward", forward, 2),
        ("forward and gradient of planes", partial(backward, with_points=False), 2),
        ("forward and gradient of planes and points", backward, 2),
    ]
    for name, call, bound in calls:
        fast, plain = alternate(_settled(call, True), _settled(call, False))
        rows.append(speedup(f"heads/dual-sphere query, {name}", fast, plain, bound))
        small, large = _mebibytes(call, True), _mebibytes(call, False)
        rows.append(Row(f"heads/dual-sphere query, {name}, peak", small, "MiB", large, large / small))
    apart = (forward(True) - forward(False)).abs().max().item()
    rows.append(at_most("heads/dual-sphere query, largest difference", apart, "of unit features", 1e-5))
    pairs = zip(backward(True), backward(False))
    apart = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
    rows.append(at_most("heads/dual-sphere query, largest difference of gradients", apart, "relative", 1e-4))
    return rows


def merge_rows() -> list[Row]:
    """Ordering and compositing two sorted sets of samples: 4,096 rays, 48 + 48 samples, 32 channels."""
    depths = [(torch.rand(1, 4096, 48, device=_device()) + 2.25).sort(dim=-1).values for _ in range(2)]
    features = [torch.randn(1, 4096, 48, 32, device=_device()) for _ in range(2)]
    densities = [torch.randn(1, 4096, 48, device=_device()) for _ in range(2)]
    sets = features, densities, depths, -1.0
    with torch.no_grad():
        merge, sort = alternate(_settled(volume.composite_merged, *sets), _settled(volume.composite_by_sorting, *sets))
    return [speedup("heads/merge of sorted samples instead of sort", merge, sort, 1)]


def renderer_rows(net: HeadGenerator) -> list[Row]:
    """Memory and time of rendering 64 x 64 rays, without and with gradients."""
    planes = torch.randn(1, net.config.planes.planes * 32, 256, 256, device=_device(), requires_grad=True)
    origin, direction = camera.rays(_view(), 64)

    def image(fast: bool, grad: bool) -> None:
        with torch.set_grad_enabled(grad):
            seen = volume.render(net.field(planes, fast=fast), origin, direction, net.config.render, fast=fast)
            if grad:
                torch.autograd.grad(seen.feature.sum() + seen.opacity.sum(), planes)

    rows = []
    for name, grad in (("inference", False), ("training", True)):
        share = _mebibytes(image, True, grad) / _mebibytes(image, False, grad)
        rows.append(at_most(f"heads/renderer peak memory, {name}, of the plain path", share, "x", 0.6))
        quick, slow = alternate(_settled(image, True, grad), _settled(image, False, grad), 3)
        rows.append(speedup(f"heads/renderer, {name}", quick, slow, 1))
    return rows


@torch.no_grad()
def forward_rows(net: HeadGenerator) -> list[Row]:
    """One 512 x 512 picture from a latent, everything included."""
    z, rows = torch.randn(1, 512, device=_device()), []

    def picture(side: int, fast: bool, precision: Precision = "float32") -> object:
        return net(z, _view(), noise="const", neural_resolution=side, fast=fast, precision=precision)

    for side, published in PUBLIC_FORWARD.items():
        name = f"heads/forward 512, {side} rays a side"
        fast, plain = alternate(_settled(picture, side, True), _settled(picture, side, False), 3)
        rows.append(speedup(f"{name}, against plain forms", fast, plain, 1))
        half, fast = alternate(_settled(picture, side, True, "half"), _settled(picture, side, True), 3)
        rows.append(speedup(f"{name}, super-resolution in half precision against float32", half, fast, 1))
        if _device() == "cpu":
            rows.append(speedup(f"{name}, against public code", fast, published, 2))
    return rows


@torch.no_grad()
def video_rows() -> list[Row]:
    """A frame of one identity: planes and background kept, samples in empty space left out, against all of it anew."""
    rows = []
    for resolution, channels in ((256, (128, 64)), (512, (256, 128))):
        net = HeadGenerator(HeadConfig(resolution=resolution, superresolution_channels=channels)).eval().to(_device())
        make_solid(net)
        ws = net.mapping(torch.randn(1, 512, device=_device()), _view())
        cache, label = HeadCache(net, ws), _view()
        name = f"heads/video frame {resolution}"
        whole = partial(net.synthesise, ws, label, noise="const", precision="float32")
        for precision in PRECISIONS:
            kept = HeadCache(net, ws, precision=precision)
            quick, slow = alternate(_settled(kept.view, label), _settled(whole), 3)
            what = f"{name}, super-resolution in {precision}"
            bound = 3 if precision == "half" or resolution < 512 else 1
            rows.append(speedup(f"{what}, cache and occupancy against uncached in float32", quick, slow, bound))
            rows.append(at_least(f"{what}, PSNR against that", _psnr(kept.view(label).image, whole().image), "dB", 45))
        every = HeadCache(net, ws, occupancy=None)
        rays = camera.rays(label, net.config.neural_resolution)
        sparse = _settled(render_occupied, cache.field, cache.occupancy, *rays, net.config.box)
        dense = _settled(partial(volume.render, every.field, *rays, net.config.render, box=net.config.box))
        quick, slow = alternate(sparse, dense, 3)
        rows.append(speedup(f"{name}, march with occupancy against march", quick, slow, 1))
    return rows


def step_rows() -> list[Row]:
    """One generator and one discriminator step at 64 pixels, and where the time goes."""
    batch, repeats = 4, 5
    config = HeadConfig(
        resolution=64,
        neural_resolution=32,
        mapping=MappingConfig(z_size=128, w_size=128),
        plane_resolution=64,
        plane_channels=16,
        channel_base=2048,
        channel_max=128,
        backbone_channels=128,
        head_channels=64,
        decoder_channels=32,
        parsing_classes=19,
        superresolution_channels=(64, 32),
        render=volume.RenderConfig(coarse=16, fine=16),
    )
    net = HeadGenerator(config).to(_device())
    critic = Discriminator(config.discriminator()).to(_device())
    label = _view().repeat(batch, 1)
    z = torch.randn(batch, 128, device=_device())
    spent: dict[str, float] = {}
    softplus = torch.nn.functional.softplus

    def step() -> None:
        marks = [time.perf_counter()]

        def mark(name: str) -> None:
            if _device() != "cpu":
                torch.cuda.synchronize()
            marks.append(time.perf_counter())
            spent[name] = spent.get(name, 0.0) + marks[-1] - marks[-2]

        out = net(z, label)
        mark("generator forward")
        shown = Shown(out.image, out.raw, out.mask, out.parsing)
        logits = critic(shown, label)
        mark("discriminator forward")
        softplus(-logits).mean().backward()
        mark("generator backward")
        softplus(critic(shown.stack().detach(), label)).mean().backward()
        mark("discriminator step")

    step()
    spent.clear()
    for _ in range(repeats):
        step()
    total = sum(spent.values())
    rows = [Row(f"heads/step at 64 pixels, batch {batch}", batch * repeats / total, "img/s")]
    rows += [Row(f"heads/step at 64 pixels, share of {name}", part / total, "") for name, part in spent.items()]
    rows.append(Row("heads/step at 64 pixels, peak memory", _mebibytes(step), "MiB"))
    return rows


def rows() -> list[Row]:
    """All rows."""
    torch.manual_seed(0)
    net = HeadGenerator(HeadConfig()).eval().to(_device())
    return query_rows() + merge_rows() + renderer_rows(net) + forward_rows(net) + video_rows() + step_rows()


if __name__ == "__main__":
    for row in rows():
        print(row)
