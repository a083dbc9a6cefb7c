"""Stage train_avatar: InvertAvatar's animatable heads, or Next3D, the baseline of the paper's table 1.

python -m ops.train.avatar data/shards/faces data/priors data/checkpoints/avatar/avatar --variant avatar
torchrun --nproc-per-node 2 -m ops.train.avatar …          the same run shared by two processes
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from models.avatar import AvatarConfig
from models.parametric.person import Person
from models.stylegan import Precision
from ops.runtime.allocator import use_fast_allocator
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.store.tar import file_sha256
from ops.train.data import Pictures
from ops.train.objectives.avatar import (
    AvatarObjective,
    AvatarTraining,
    Faces,
    Next3DParams,
    check_variant,
    model_of,
    plan_of,
)
from ops.train.objectives.glimpse import Glimpse
from ops.train.priors import load_people
from ops.train.run import train_and_publish
from ops.train.settings import TrainerParams

SHOWN = 4096  # faces of the data kept for snapshots; unpublished: our choice


class AvatarTrainer(TrainerParams):
    """The trainer with EG3D's numbers. An empty ``plan`` stands for the paper's two phases."""

    batch: int = Field(default=16, gt=0, description="images a step, over all processes")  # appendix A.1: 4 devices
    ema: float = Field(default=0.99889, ge=0, lt=1, description="decay a step")  # EG3D: half-life 10,000 images


class AvatarDiscriminatorParams(Params):
    """What the discriminator does not take from the generator."""

    channel_base: int = Field(default=32768, ge=1)  # StyleGAN2
    channel_max: int = Field(default=512, ge=1)  # StyleGAN2
    mapping_layers: int = Field(default=8, ge=1)  # StyleGAN2
    group: int = Field(default=4, ge=1)  # StyleGAN2
    precision: Precision = "float16"  # EG3D
    half_blocks: int = Field(default=4, ge=0)  # EG3D


class TrainAvatarParams(Params):
    """Parameters of the stage."""

    variants: tuple[str, ...] = ("avatar", "next3d")  # rows of the paper's table 1
    trainer: AvatarTrainer = AvatarTrainer()
    model: AvatarConfig = AvatarConfig()
    next3d: Next3DParams = Next3DParams()
    discriminator: AvatarDiscriminatorParams = AvatarDiscriminatorParams()
    objective: AvatarTraining = AvatarTraining()


@stage("train_avatar", TrainAvatarParams)
def main(s: Stage[TrainAvatarParams], shards: Path, priors: Path, out: Path, *, variant: str = "avatar") -> None:
    """Train an animatable head generator: avatar (InvertAvatar's) or next3d."""
    p, chosen = s.params, check_variant(variant)
    model = model_of(p.model, p.next3d, chosen)
    plan = p.trainer.plan if p.trainer.plan.phases or p.trainer.plan.curves else plan_of(p.objective, model)
    trainer = p.trainer.model_copy(update={"plan": plan})
    used = {"model": model.model_dump(mode="json"), "trainer": trainer.model_dump(mode="json")}
    person = load_people(priors)
    train_and_publish(
        s,
        lambda pictures: AvatarObjective(
            model,
            p.objective,
            person,
            faces_of(pictures, person),
            p.discriminator.model_dump(),
            glimpse_of(pictures, model.mapping.z_size) if p.objective.imitate else None,
        ),
        shards,
        out,
        params=trainer,
        resolution=model.resolution,
        fits=person.mirrored_units,
        facts={
            "system": "avatar",
            "variant": variant,
            "params": {**p.model_dump(mode="json", exclude={"variants", "next3d"}), **used},
            "people": file_sha256(priors / "people.safetensors"),
        },
    )


def faces_of(pictures: Pictures, person: Person, most: int = SHOWN) -> Faces:
    """The fitted faces of a data set, at most so many, spread evenly over it.

    Raises:
        LineamentError: their codes are not the person's.
    """
    size, numbers = len(person.identity_basis), _spread(pictures, most)
    codes = [pictures.codes(number) for number in numbers]
    for code in codes:
        if len(code.identity) != size:
            raise LineamentError(
                f"{pictures.dataset.folder}: its identity codes have {len(code.identity)} numbers, where the priors' "
                f"face model has {size}. Run `dvc repro shards_faces priors`, or give the priors of "
                "the model that the faces were fitted with."
            )
    cameras = [pictures.camera(number) for number in numbers]
    identity, expression = (np.stack(part) for part in zip(*codes))
    return Faces(*(torch.from_numpy(part) for part in (identity, expression, np.stack(cameras))))


def glimpse_of(pictures: Pictures, size: int, most: int = SHOWN) -> Glimpse:
    """How to read latents off the pictures of a data set, from at most so many of them."""
    samples = [pictures.read(number) for number in _spread(pictures, most)]
    images = torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2) / 127.5 - 1
    cameras = torch.from_numpy(np.stack([sample.camera for sample in samples]))
    return Glimpse(images, cameras, size)


def _spread(pictures: Pictures, most: int) -> list[int]:
    pool = pictures.pool("")
    return [int(n) for n in pool[np.linspace(0, len(pool) - 1, min(most, len(pool))).round().astype(int)]]


if __name__ == "__main__":
    use_fast_allocator()
    raise SystemExit(main())
