"""Animatable heads and avatars: parameters, rasterised faces, the time from frames to an avatar, frames a second."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial

import torch

from benchmarks.harness import Row, alternate, at_least, at_most, seconds, speedup
from models import camera
from models.avatar import AvatarConfig, AvatarGenerator
from models.avatar_mesh import AvatarMesh
from models.inversion import Canonical, Frame, InversionConfig, Inverter, State
from models.next3d import Next3DConfig, Next3DGenerator
from models.parametric.person import EXPRESSION, IDENTITY, Person, load_person

PARAMETERS = {"InvertAvatar": 88_301_010, "Next3D": 172_815_807}  # of the public networks; the papers' units are 2**20
SMALL = 64  # pixels of the map at which rasterisers are compared
BATCH = 4  # faces rasterised at once: the pictures a device has at a time in the paper's training
# Table 3: seconds from frames to an avatar on an RTX 3090
PAPER_SECONDS = {2: 0.20, 4: 0.32}


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _settled(call: Callable[[], object]) -> Callable[[], object]:
    """The call, waiting for the accelerator to finish."""

    def wait() -> object:
        result = call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return result

    return wait


def _parameter_rows() -> list[Row]:
    with torch.device("meta"):
        made = {
            "InvertAvatar": AvatarGenerator(AvatarConfig(layout="release")),
            "Next3D": Next3DGenerator(Next3DConfig(layout="release")),
        }
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in made.items()}
    return [
        at_most(f"avatar/parameters of {name}, off", 100 * abs(counts[name] / known - 1), "per cent", 1)
        for name, known in PARAMETERS.items()
    ]


def _codes(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    identity, expression = torch.randn(count, IDENTITY, generator=g), torch.rand(count, EXPRESSION, generator=g) * 0.4
    return identity.to(_device()), expression.to(_device())


def _surface_rows(person: Person) -> list[Row]:
    """UV maps of a batch: the fast rasteriser against the plain one, which is too slow for more than small maps."""
    identity, expression = _codes(BATCH)
    large = AvatarMesh(person, AvatarConfig()).to(_device())
    alone = _settled(partial(large.surface, identity, expression))
    alone()
    mesh = AvatarMesh(person, AvatarConfig(plane_resolution=SMALL)).to(_device())
    fast, plain = (_settled(partial(mesh.surface, identity, expression, b)) for b in ("auto", "torch"))
    one, other = (mesh.surface(identity, expression, b) for b in ("auto", "torch"))
    both = (one.alpha > 0) & (other.alpha > 0)
    near = ((one.uv - other.uv).abs().amax(-1) < 1e-3)[both[:, 0]].float().mean().item()
    return [
        speedup(f"avatar/UV maps of {BATCH} faces at {mesh.config.plane_resolution}", *alternate(fast, plain, 1), 10),
        Row(f"avatar/UV maps of {BATCH} faces at {large.config.plane_resolution}", seconds(alone), "s"),
        at_least("avatar/UV maps equal", near, "share", 0.995),
    ]


def _frame(mesh: AvatarMesh, size: int) -> Frame:
    identity, expression = _codes(1)
    turn = torch.tensor([0.2])
    label = camera.pack_label(camera.pose_on_sphere(turn, 0 * turn), camera.intrinsics(3.47)).to(_device())
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(_device()) * 2 - 1

    def unwrap(picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return mesh.unwrap(picture, identity, expression, label, mesh.config.plane_resolution)

    return Frame(image, label, mesh.surface(identity, expression), unwrap)


def _avatar(inverter: Inverter, frame: Frame, count: int) -> Canonical:
    state = inverter.start(frame)
    for _ in range(count - 1):
        state = inverter.add(state, frame)
    return inverter.canonical(state)


def inversion_rows(model: AvatarConfig, config: InversionConfig, repeats: int = 3) -> list[Row]:
    """What the first frame costs, what a further one, how long avatars of some frames take, and frames a second.

    Frames are fitted already; the networks are untrained, which costs as much. A further frame is compared with what is
    rendered (``later_residual: raw``) for the aim, and with the final picture, as the public code does it, beside it.
    """
    torch.manual_seed(0)
    person = load_person()
    mesh = AvatarMesh(person, model).to(_device())
    inverter = Inverter(AvatarGenerator(model), config).to(_device()).eval()
    as_published = copy(inverter)
    as_published.config = config.model_copy(update={"later_residual": "image"})
    frame = _frame(mesh, model.resolution)
    where = f"{model.resolution} px, {_device()}"
    with torch.inference_mode():
        state: State = inverter.start(frame)
        avatar = inverter.canonical(state)
        first = _settled(lambda: _avatar(inverter, frame, 1))
        added = _settled(lambda: inverter.add(state, frame))
        public = _settled(lambda: as_published.add(state, frame))
        one, another = alternate(first, added, repeats)
        published = min(seconds(public) for _ in range(repeats))
        rows = [
            at_most(f"avatar/a further frame over the first, {where}", another / one, "share", 1 / 3),
            Row(f"avatar/the first frame, {where}", one, "s"),
            Row(f"avatar/a further frame, {where}", another, "s"),
            Row(f"avatar/a further frame compared with the final picture, {where}", published, "s"),
        ]
        for count, paper in PAPER_SECONDS.items():
            took = seconds(_settled(partial(_avatar, inverter, frame, count)))
            rows.append(Row(f"avatar/from {count} frames, {where} (paper: RTX 3090)", took, "s", paper, paper / took))
        draw = _settled(lambda: inverter.render(avatar, frame.surface, frame.label))
        draw()
        rows.append(Row(f"avatar/frames a second, {where}", 1 / min(seconds(draw) for _ in range(repeats)), "1/s"))
    return rows


def rows() -> list[Row]:
    """All rows of animatable heads, at the paper's sizes."""
    precision = "float16" if torch.cuda.is_available() else "float32"
    model = AvatarConfig(superresolution_precision=precision)  # type: ignore[arg-type]
    config = InversionConfig(later_residual="raw").fused(fusion="gru")
    return [*_parameter_rows(), *_surface_rows(load_person()), *inversion_rows(model, config)]
