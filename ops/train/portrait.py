"""Stage train_portrait: AniPortraitGAN on head-and-shoulder portraits, the full method or one of its ablations.

python -m ops.train.portrait data/shards/portraits data/priors data/checkpoints/portrait/full --variant full
    --coefficients data/checkpoints/coefficients/teacher        reads codes for the landmark loss; none: no such loss
torchrun --nproc-per-node 2 -m ops.train.portrait …          the same run shared by two processes

The first of the paper's two stages; ops/train/portrait_superresolution.py is the second.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from models.coefficients import Coefficients
from models.deep3d import EXPRESSION, IDENTITY, FaceReader
from models.portrait import PortraitConfig
from models.portrait_discriminators import DiscriminatorConfig
from ops.perception import deep3d
from ops.perception.trained import coefficients as load_coefficients
from ops.runtime.allocator import use_fast_allocator
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.store.tar import file_sha256
from ops.train.export import read_config
from ops.train.objectives.portrait import PortraitObjective
from ops.train.objectives.portrait_params import PortraitTraining
from ops.train.priors import CODES, Priors, load_people, people_kind
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
    regressor, read_by = (None, None) if coefficients is None else reader_of(p, coefficients, priors)
    facts = {
        "system": "portrait",
        "variant": variant,
        "params": p.model_dump(mode="json", exclude={"variants"}),
        "priors": file_sha256(priors / "priors.safetensors"),
    }
    if read_by is not None:
        facts["coefficients"] = read_by
    train_and_publish(
        s,
        lambda _: PortraitObjective(p.model, p.objective, variant, people, prior, regressor, p.discriminator),
        shards,
        out,
        params=p.trainer,
        resolution=p.objective.portrait,
        faces=p.objective.face,
        facts=facts,
    )


def reader_of(p: TrainPortraitParams, coefficients: Path, priors: Path) -> tuple[Coefficients | FaceReader, str]:
    """The network behind the landmark loss, as ``objective.reader`` says, and the sha256 of its weights.

    Args:
        p: of the stage.
        coefficients: the checkpoint of ``train_coefficients``.
        priors: that training draws its people from.

    Raises:
        LineamentError: it is not there, or reads the codes of another parametric model.
    """
    model = p.model
    if p.objective.reader == deep3d.NAME:
        if people_kind(priors) != "bfm":
            raise LineamentError(
                f"{priors}: its people are {people_kind(priors)}'s, and Deep3DFaceRecon reads codes of BFM 2009 "
                f"({IDENTITY} + {EXPRESSION}). Set train_portrait.objective.reader: train_coefficients, or estimate "
                "the priors of people whose faces are BFM's."
            )
        file = deep3d.weights_file()
        reader: Coefficients | FaceReader = FaceReader(deep3d.deep3d(file))
        sizes, digest = {"identity": IDENTITY, "expression": EXPRESSION}, file_sha256(file)
        where, remedy = file, "The model's codes are to be BFM's."
    else:
        reader = load_coefficients(coefficients)
        sizes = {"identity": reader.config.identity, "expression": reader.config.expression}
        digest = read_config(coefficients)["files"]["network.safetensors"]["sha256"]
        where, remedy = coefficients, "Train it for the parametric model in use: dvc repro train_coefficients."
    for name, read in sizes.items():
        if read != (wanted := getattr(model, name)):
            raise LineamentError(
                f"{where}: reads {read} {name} codes, where train_portrait.model.{name} is {wanted}. {remedy}"
            )
    return reader, digest


if __name__ == "__main__":
    use_fast_allocator()
    raise SystemExit(main())
