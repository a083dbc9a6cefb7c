"""What the stages that train encoders have in common: the prior they belong to, and the faces they learn on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field
from torch import Tensor

from models.inversion import InversionConfig
from ops.apply.avatars import Prior, load_prior
from ops.apply.inverters import SYSTEM, load_encoders, make_inverter, read_encoders
from ops.runtime.params import Params
from ops.runtime.stage import Stage
from ops.store.tar import file_sha256
from ops.train.data import Batches, Pictures
from ops.train.likeness import Likeness
from ops.train.objective import Objective
from ops.train.objectives.inversion import InversionTraining, Pose, World
from ops.train.priors import Priors, load_people
from ops.train.run import train_and_publish
from ops.train.settings import TrainerParams


class EncoderTrainer(TrainerParams):
    """The trainer with InvertAvatar's numbers."""

    images: int = Field(
        default=1_000_000, gt=0, description="real images to see in all"
    )  # our choice; A.2: 2 to 5 days
    batch: int = Field(default=16, gt=0)  # A.2
    ema: float = Field(default=0.0, ge=0, lt=1, description="decay a step")  # none is named


class EncoderParams(Params):
    """Which prior the encoders belong to; ``model`` has the encoders' sizes."""

    trainer: EncoderTrainer = EncoderTrainer()
    model: InversionConfig = InversionConfig()


class Lesson(NamedTuple):
    """Loaded inputs of a stage.

    prior: the generator. config: of all encoders, those of earlier stages as they were trained. base: folder of the
    earlier stage and the encoders to take from it. facts: what defines the run.
    """

    prior: Prior
    config: InversionConfig
    base: tuple[Path, Sequence[str]] | None
    priors: Path
    facts: dict[str, Any]
    mirrored: tuple[int, ...]

    def world(self, training: InversionTraining, weights: Path) -> World:
        """The prior's world with encoders that begin where the earlier stage ended."""
        inverter = make_inverter(self.prior, self.config)
        if self.base is not None:
            load_encoders(inverter, *self.base, fusions=False)
        person, priors = load_people(self.priors), Priors.load(self.priors)
        return World(inverter, self.prior.mesh, person, priors, training, Likeness(training.likeness, weights))


def begin(
    stage: str,
    params: Mapping[str, Any],
    model: InversionConfig,
    folder: Path,
    priors: Path,
    base: tuple[Path, Sequence[str]] | None = None,
) -> Lesson:
    """Load a prior, and the configuration of the encoders that are trained already.

    Args:
        stage: its name, for the record.
        params: of the stage as JSON.
        model: sizes of the encoders to train.
        folder: of the prior's checkpoint.
        priors: of the stage ``priors``.
        base: folder of an earlier stage, and the encoders to take from it.

    Raises:
        LineamentError: missing, damaged, or encoders of another prior.
    """
    prior = load_prior(folder, priors)
    facts: dict[str, Any] = {"system": SYSTEM, "variant": stage, "prior": prior.digest}
    if base is not None:
        earlier, facts["base"] = read_encoders(prior, base[0])
        model = model.model_copy(update={"latent": earlier.latent})
        if "texture" in base[1]:
            fusion = {name: getattr(model.texture, name) for name in ("fusion", "update", "window")}
            frames = {name: getattr(model, name) for name in ("later_frames", "later_residual", "few", "enough")}
            model = earlier.fused(**fusion).model_copy(update=frames)
    facts["params"] = {**params, "model": model.model_dump(mode="json")}
    facts["priors"] = file_sha256(priors / "priors.safetensors")
    return Lesson(prior, model, base, priors, facts, load_people(priors).mirrored_units)


def teach(s: Stage[Any], lesson: Lesson, build: Callable[[Pictures], Objective], shards: Path, out: Path) -> None:
    """Train encoders as ``s.params.trainer`` says, and publish them."""
    train_and_publish(
        s,
        build,
        shards,
        out,
        params=s.params.trainer,
        resolution=lesson.prior.config.resolution,
        fits=lesson.mirrored,
        facts=lesson.facts,
    )
    s.metrics({"prior": lesson.prior.digest, "likeness": s.params.objective.likeness.model_dump()})


def first_pictures(pictures: Pictures, most: int) -> tuple[Tensor, Pose]:
    """Some pictures of a data set and their poses, for previews."""
    count = min(most, len(pictures.pool("")))
    batch = next(iter(Batches(pictures, count)))
    return batch["image"], Pose(batch["identity"], batch["expression"], batch["camera"])


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Numbers fit for a versioned file."""
    return {name: float(f"{value:.6g}") for name, value in values.items()}
