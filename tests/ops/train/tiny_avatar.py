"""Animatable generators of a few thousand weights, driven by the default face."""

from __future__ import annotations

from functools import cache

import torch

from models.avatar import AvatarConfig
from models.camera import intrinsics, pack_label, pose_on_sphere
from models.parametric.person import EXPRESSION, IDENTITY, Person, load_person
from ops.train.objective import Batch, Moment
from ops.train.objectives.avatar import (
    AvatarObjective,
    AvatarTraining,
    Faces,
    Next3DParams,
    check_variant,
    model_of,
)

SIDE = 32
CPU = torch.device("cpu")
MODEL = {
    "resolution": SIDE, "neural_resolution": 16, "mapping": {"z_size": 6, "w_size": 8}, "plane_resolution": 32,
    "plane_channels": 4, "channel_base": 128, "channel_max": 8, "decoder_channels": 6,
    "superresolution_channels": [6, 4], "render": {"near": 0.5, "far": 5.0, "limits": "box", "coarse": 4, "fine": 4},
}  # fmt: skip
NEXT3D = {"neural_resolution": 16, "mouth_side": 16, "blend_lowest": 8}
DISCRIMINATOR = {"mapping_layers": 2}


@cache
def person() -> Person:
    """The default face model, read once."""
    return load_person()


def faces(n: int = 4, seed: int = 0) -> Faces:
    """Faces of all sorts, seen from -40 to 40 degrees."""
    g = torch.Generator().manual_seed(seed)
    pose = pose_on_sphere(torch.linspace(-0.7, 0.7, n), torch.zeros(n))
    expression = torch.rand(n, EXPRESSION, generator=g) * 0.3
    return Faces(torch.randn(n, IDENTITY, generator=g), expression, pack_label(pose, intrinsics(3.47)))


def build(variant: str = "avatar", seed: int = 0, **training) -> AvatarObjective:
    """An objective of the tiny model."""
    torch.manual_seed(seed)
    model = model_of(AvatarConfig.model_validate(MODEL), Next3DParams.model_validate(NEXT3D), check_variant(variant))
    options = AvatarTraining.model_validate({"r1_every": 2, "density_every": 2, **training})
    return AvatarObjective(model, options, person(), faces(8), DISCRIMINATOR)


def moment(step: int = 0, **settings) -> Moment:
    """A step's moment; torch's own generator is seeded as the trainer does it."""
    torch.manual_seed(step)
    return Moment(step, 4 * step, torch.Generator().manual_seed(100 + step), CPU, settings=settings)


def real(n: int = 4) -> Batch:
    """A batch of noise with faces."""
    random = torch.Generator().manual_seed(1)
    return {"image": torch.rand(n, 3, SIDE, SIDE, generator=random) * 2 - 1, **faces(n)._asdict()}
