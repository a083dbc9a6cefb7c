"""Stage train_portrait_superresolution: AniPortraitGAN's second stage of training, large portraits by U.

python -m ops.train.portrait_superresolution data/shards/portraits data/priors data/checkpoints/portrait/full
    data/checkpoints/portrait_superresolution/full

All but U is the first stage's and stays as it is, its sizes too: they are read from its checkpoint. What is published
is a generator of portraits like the first stage's, only larger, and takes its place wherever one is asked for.
"""

from __future__ import annotations

from pathlib import Path

from models.portrait_atlas import AtlasConfig
from models.portrait_discriminators import DiscriminatorConfig
from ops.apply.portraits import SYSTEM, Portraits
from ops.runtime.allocator import use_fast_allocator
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.train.export import CONFIG
from ops.train.objectives.portrait_params import SuperresolutionTraining
from ops.train.objectives.portrait_superresolution import SuperresolutionObjective
from ops.train.portrait import PortraitTrainer
from ops.train.run import train_and_publish


class TrainPortraitSuperresolutionParams(Params):
    """Parameters of the stage."""

    variants: tuple[str, ...] = ("full",)  # of the first stage, to enlarge; unpublished: our choice
    trainer: PortraitTrainer = PortraitTrainer()
    atlas: AtlasConfig = AtlasConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    objective: SuperresolutionTraining = SuperresolutionTraining()


@stage("train_portrait_superresolution", TrainPortraitSuperresolutionParams)
def main(s: Stage[TrainPortraitSuperresolutionParams], shards: Path, priors: Path, base: Path, out: Path) -> None:
    """Train the super-resolution of a variant of AniPortraitGAN on top of its first stage."""
    p = s.params
    if not (base / CONFIG).is_file():
        raise LineamentError(
            f"{base}: no first stage to build on. Train it first: dvc repro train_portrait@{base.name}."
        )
    first = Portraits(base, priors)
    if first.large:
        raise LineamentError(
            f"{base}: has a super-resolution already. Give the checkpoint of the first stage, of train_portrait."
        )
    check_sizes(p)
    model = first.config.model_copy(update={"atlas": p.atlas})
    params = p.model_dump(mode="json", exclude={"variants", "atlas"})
    variant = first.record["variant"]
    train_and_publish(
        s,
        lambda _: SuperresolutionObjective(
            model, p.objective, variant, first.people, first.prior, first.net.state_dict(), p.discriminator
        ),
        shards,
        out,
        params=p.trainer,
        resolution=p.objective.portrait,
        faces=p.objective.face,
        facts={
            "system": SYSTEM,
            "variant": variant,
            "params": {**params, "model": model.model_dump(mode="json")},
            "priors": first.record["priors"],
            "base": first.record["files"]["generator.safetensors"]["sha256"],
        },
    )


def check_sizes(p: TrainPortraitSuperresolutionParams) -> None:
    """Raise LineamentError unless U's factor divides the pictures."""
    for name in ("portrait", "face"):
        side, least = getattr(p.objective, name), 2 * p.atlas.scale
        if side % least:
            raise LineamentError(
                f"train_portrait_superresolution.objective.{name} is {side}, which is no multiple of {least}: "
                f"{len(p.atlas.up_channels)} entries of atlas.up_channels enlarge {p.atlas.scale} times."
            )


if __name__ == "__main__":
    use_fast_allocator()
    raise SystemExit(main())
