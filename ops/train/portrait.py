"""Stage train_portrait: AniPortraitGAN on head-and-shoulder portraits, the full method or one of its ablations.

python -m ops.train.portrait data/shards/portraits data/priors data/checkpoints/portrait/full --variant full
    --coefficients data/checkpoints/coefficients/teacher        reads codes for the landmark loss; none: no such loss
python -m ops.train.portrait data/shards/portraits data/priors data/checkpoints/portrait/large --variant full
    --base data/checkpoints/portrait/full        the second stage: super-resolution on top of the first
torchrun --nproc-per-node 2 -m ops.train.portrait …          the same run shared by two processes
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from models.portrait import PortraitConfig
from models.portrait_discriminators import DiscriminatorConfig
from ops.perception.trained import coefficients as load_coefficients
from ops.runtime.allocator import use_fast_allocator
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.store.tar import file_sha256
from ops.train.export import read_config, read_weights
from ops.train.objectives.portrait import PortraitObjective
from ops.train.objectives.portrait_params import PortraitTraining
from ops.train.priors import CODES, Priors, load_people
from ops.train.run import train_and_publish
from ops.train.settings import TrainerParams


class PortraitTrainer(TrainerParams):
    """The trainer with GRAM's numbers."""

    ema: float = Field(default=0.999, ge=0, lt=1, description="decay a step")  # microsoft/GRAM


class TrainPortraitParams(Params):
    """Parameters of the stage."""

    variants: tuple[str, ...] = ("full", "whole_only", "no_torso", "crop", "nearest")  # rows of the paper's Table 2
    trainer: PortraitTrainer = PortraitTrainer()
    model: PortraitConfig = PortraitConfig(expression=52)  # anny's face units; the paper: 64 of BFM
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    objective: PortraitTraining = PortraitTraining()


@stage("train_portrait", TrainPortraitParams)
def main(
    s: Stage[TrainPortraitParams],
    shards: Path,
    priors: Path,
    out: Path,
    *,
    variant: str = "full",
    base: Path | None = None,
    coefficients: Path | None = None,
) -> None:
    """Train AniPortraitGAN: full, or the ablation whole_only, no_torso, crop or nearest."""
    p = s.params
    prior, people = Priors.load(priors), load_people(priors)
    drawn = prior.sample(2)
    for name in CODES[:3]:
        found, wanted = getattr(drawn, name).shape[1], getattr(p.model, name)
        if found != wanted:
            raise LineamentError(
                f"{priors}: its {name} codes have {found} numbers, where train_portrait.model.{name} is {wanted}. "
                "Use the parametric model that the priors were estimated with, or estimate them anew."
            )
    weights = None if base is None else read_weights(base)
    regressor = None if coefficients is None else load_coefficients(coefficients)
    if regressor is not None:
        for name in CODES[:2]:
            read, wanted = getattr(regressor.config, name), getattr(p.model, name)
            if read != wanted:
                raise LineamentError(
                    f"{coefficients}: reads {read} {name} codes, where train_portrait.model.{name} is {wanted}. "
                    "Train it for the parametric model in use: dvc repro train_coefficients."
                )
    facts = {
        "system": "portrait",
        "variant": variant,
        "params": p.model_dump(mode="json", exclude={"variants"}),
        "priors": file_sha256(priors / "priors.safetensors"),
    }
    if coefficients is not None:
        facts["coefficients"] = read_config(coefficients)["files"]["network.safetensors"]["sha256"]
    if base is not None:
        facts["base"] = read_config(base)["files"]["generator.safetensors"]["sha256"]
    train_and_publish(
        s,
        lambda _: PortraitObjective(
            p.model, p.objective, variant, people, prior, regressor, p.discriminator, base=weights
        ),
        shards,
        out,
        params=p.trainer,
        resolution=p.objective.portrait,
        faces=p.objective.face,
        facts=facts,
    )


if __name__ == "__main__":
    use_fast_allocator()
    raise SystemExit(main())
